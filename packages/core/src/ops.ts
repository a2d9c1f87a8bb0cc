/**
 * The ops of a backend, as plain objects of sizes and buffers.
 *
 * T tokens, H hidden size, I intermediate size, X and Y keys per axis, N experts, k experts per
 * token. All matrices are row-major. "float" stands for f32, f16 or bf16. In one call all hidden
 * states, incoming gradients and weights share one storage dtype unless a field says otherwise;
 * every gradient that a call writes is f32. Arithmetic is as if in f32 or better, and an output is
 * rounded once.
 *
 * Outputs are allocated by the caller and never alias anything else in the call. `accumulate` names
 * the f32 outputs that are added to instead of overwritten. Outputs marked optional are skipped,
 * work and all, when absent. T may be 0: gradients of weights are then zero (or, accumulated, left
 * alone), all other outputs are empty.
 *
 * `B` is the buffer type: `DeviceBuffer` for callers, a provider's own handle inside a backend.
 */
import type { Activation } from "./activation.js";
import type { DeviceBuffer } from "./backend.js";

/** Statistics of an evaluation-mode normalisation: (value - mean) / sqrt(variance + epsilon). */
export interface NormStatistics<B = DeviceBuffer> {
  /** f32, one per feature. */
  mean: B;
  /** f32, one per feature. */
  variance: B;
  epsilon: number;
}

/**
 * `output[rows, columns] (+)= op(a) op(b)`, the inner sum over `inner`.
 *
 * `a` is [rows, inner] ([inner, rows] with `transposeA`), `b` is [inner, columns] ([columns, inner]
 * with `transposeB`: PyTorch's weight shape). Each is any float; two different 16-bit dtypes do not
 * mix. `output` is any float; accumulated, it must be f32.
 */
export interface LinearCall<B = DeviceBuffer> {
  rows: number;
  inner: number;
  columns: number;
  a: B;
  b: B;
  output: B;
  transposeA?: boolean;
  transposeB?: boolean;
  accumulate?: readonly "output"[];
  /** Normalises `a` along `inner` while it is loaded, never folded into `b`. Not with `transposeA`. */
  inputNorm?: NormStatistics<B>;
  /** Normalises the product along `columns` before it is stored. Not with `accumulate`. */
  outputNorm?: NormStatistics<B>;
}

interface BatchNormForwardBase<B> {
  tokens: number;
  features: number;
  /** [T, features], any float. */
  input: B;
  /** [T, features], f32: (input - mean) / sqrt(variance + epsilon). */
  output: B;
  epsilon: number;
}

/** BatchNorm1d (affine = False) with given statistics. */
export interface BatchNormEvaluationCall<B = DeviceBuffer> extends BatchNormForwardBase<B> {
  training: false;
  /** f32 [features], read. */
  mean: B;
  /** f32 [features], read. */
  variance: B;
}

/**
 * BatchNorm1d (affine = False) with the statistics of the batch, T >= 2: mean and biased variance,
 * in two passes. Running statistics r become (1 - momentum) r + momentum * s, where s is the batch
 * mean and the unbiased (T - 1) batch variance.
 */
export interface BatchNormTrainingCall<B = DeviceBuffer> extends BatchNormForwardBase<B> {
  training: true;
  momentum: number;
  /** f32 [features], written: the batch mean, saved for the backward. */
  mean: B;
  /** f32 [features], written: the biased batch variance, saved for the backward. */
  variance: B;
  /** f32 [features], updated in place. */
  runningMean: B;
  /** f32 [features], updated in place. */
  runningVariance: B;
}

export type BatchNormForwardCall<B = DeviceBuffer> = BatchNormEvaluationCall<B> | BatchNormTrainingCall<B>;

/**
 * With n the normalised input, r = 1 / sqrt(variance + epsilon) and d = gradOutput:
 * in training gradInput (+)= r (d - mean_t(d) - n mean_t(d n)), in evaluation gradInput (+)= r d. In training a
 * backend may take the statistics from `input` anew instead of as they were saved, rounded to f32.
 */
export interface BatchNormBackwardCall<B = DeviceBuffer> {
  tokens: number;
  features: number;
  training: boolean;
  epsilon: number;
  /** [T, features], any float. */
  input: B;
  /** f32 [features]: what the forward wrote (training) or read (evaluation). */
  mean: B;
  /** f32 [features]: what the forward wrote (training) or read (evaluation). */
  variance: B;
  /** [T, features], f32. */
  gradOutput: B;
  /** [T, features], f32. */
  gradInput: B;
  accumulate?: readonly "gradInput"[];
}

interface RouterShape {
  tokens: number;
  /** X. */
  keysX: number;
  /** Y. */
  keysY: number;
  /** k, 1 <= k <= X * Y. */
  topK: number;
  /** Whether the routing weights of a token are divided by their sum (upstream's norm_topk_prob). */
  normalizeWeights: boolean;
}

/**
 * Picks, per token, the k best of X * Y pairs of keys and their routing weights.
 *
 * With lx the first X and ly the last Y logits of a token: the score of pair (i, j) is
 * (lx[i] - max lx) + (ly[j] - max ly), each of the three operations one f32 operation. Pairs come out
 * by (score descending, rank of i ascending, rank of j ascending), where a key's rank is its place
 * when its axis is sorted by (logit descending, index ascending). For the selection alone, logits are
 * clamped to the finite f32 range and NaN counts as its lowest value. Expert id = i * Y + j.
 *
 * Weight = exp(log_softmax(lx)[i] + log_softmax(ly)[j]), from the logits as they are: where a
 * log-softmax is not a number, so is the weight. With `normalizeWeights`, divided by the sum over k,
 * computed relative to the largest so that it does not vanish.
 */
export interface RouterSelectForwardCall<B = DeviceBuffer> extends RouterShape {
  /** [T, X + Y], f32: the x keys first. */
  logits: B;
  /** [T, k], i32. */
  ids: B;
  /** [T, k], f32. */
  weights: B;
}

/**
 * The gradient of the routing weights with respect to the logits; none flows through the choice. With w
 * the weights of the forward and g = gradWeights: d_p = g_p w_p, or with `normalizeWeights`
 * d_p = w_p (g_p - sum_q g_q w_q); then gradLogits of x key a (+)= sum of d_p over the pairs p whose i is a,
 * - softmax(lx)[a] * sum of all d_p; the y keys likewise.
 */
export interface RouterSelectBackwardCall<B = DeviceBuffer> extends RouterShape {
  /** [T, X + Y], f32. */
  logits: B;
  /** [T, k], i32. An id outside [0, X * Y) counts as absent, and is reported as in `experts`. */
  ids: B;
  /** [T, k], f32. */
  gradWeights: B;
  /** [T, X + Y], f32. */
  gradLogits: B;
  accumulate?: readonly "gradLogits"[];
}

interface ExpertsShape<B> {
  tokens: number;
  hiddenSize: number;
  /** Rows of the two tables, N; at least the number of experts that ids can name. */
  numExperts: number;
  topK: number;
  activation: Activation;
  /** [T, H], storage dtype. */
  hiddenStates: B;
  /** [N, H], storage dtype: hidden to scalar. */
  down: B;
  /** [N, H], storage dtype: scalar to hidden. */
  up: B;
  /**
   * [T, k], i32. An id outside [0, N) adds nothing and is reported as INVALID_ARGUMENT at the next
   * await; it never reads outside the tables. The same id may occur twice in a token: both count.
   */
  ids: B;
  /** [T, k], f32. */
  weights: B;
}

/** `a_j = x . down[id_j]`, `output = round(addend + sum_j act(a_j) w_j up[id_j])`. */
export interface ExpertsForwardCall<B = DeviceBuffer> extends ExpertsShape<B> {
  /** [T, H], f32 or the storage dtype; absent: zero. The shared MLP's output or a residual. */
  addend?: B;
  /** [T, H], f32 or the storage dtype. */
  output: B;
}

/**
 * Gradients of the two tables. Dense: all rows, added to when `accumulate` has "gradTables". Compact:
 * only the rows that were used. Either table may be absent.
 */
export type TableGradients<B = DeviceBuffer> =
  | {
      layout: "dense";
      /** [N, H], f32. */
      down?: B;
      /** [N, H], f32. */
      up?: B;
    }
  | {
      layout: "compact";
      /** [min(T * k, N)], i32: used ids ascending, each once; entries from `count` on are unspecified. */
      ids: B;
      /** [1], i32: how many rows are used; stays on the device. */
      count: B;
      /** [min(T * k, N), H], f32: row r belongs to ids[r]. */
      down?: B;
      /** [min(T * k, N), H], f32: row r belongs to ids[r]. */
      up?: B;
    };

/**
 * With d = gradOutput, a_j recomputed and p = pairs (t, j): gradWeights[p] = act(a) (d . up[id]);
 * c = w act'(a) (d . up[id]); gradHiddenStates[t] = sum_j c down[id_j];
 * gradDown[e] = sum over p with id e of c x[t]; gradUp[e] = sum of act(a) w d[t]; pairs in the order of t, j.
 */
export interface ExpertsBackwardCall<B = DeviceBuffer> extends ExpertsShape<B> {
  /** [T, H], storage dtype. */
  gradOutput: B;
  /** [T, H], f32. */
  gradHiddenStates?: B;
  /** [T, k], f32. */
  gradWeights?: B;
  gradTables?: TableGradients<B>;
  /** "gradTables" only with the dense layout. */
  accumulate?: readonly ("gradHiddenStates" | "gradWeights" | "gradTables")[];
}

interface MlpShape<B> {
  tokens: number;
  hiddenSize: number;
  intermediateSize: number;
  activation: Activation;
  /** [T, H], storage dtype. */
  hiddenStates: B;
  /** [I, H], storage dtype. */
  gate: B;
  /** [I, H], storage dtype. */
  up: B;
  /** [H, I], storage dtype. */
  down: B;
}

/** `output = round(addend + (act(x gate^T) * (x up^T)) down^T)`. */
export interface MlpForwardCall<B = DeviceBuffer> extends MlpShape<B> {
  /** [T, H], f32 or the storage dtype; absent: zero. */
  addend?: B;
  /** [T, H], f32 or the storage dtype. */
  output: B;
}

/** The gradients of `MlpForwardCall`; its intermediate is recomputed. */
export interface MlpBackwardCall<B = DeviceBuffer> extends MlpShape<B> {
  /** [T, H], storage dtype. */
  gradOutput: B;
  /** [T, H], f32. */
  gradHiddenStates?: B;
  /** [I, H], f32. */
  gradGate?: B;
  /** [I, H], f32. */
  gradUp?: B;
  /** [H, I], f32. */
  gradDown?: B;
  accumulate?: readonly ("gradHiddenStates" | "gradGate" | "gradUp" | "gradDown")[];
}

/**
 * One step of PyTorch's AdamW (decoupled weight decay), in place. With g = gradientScale * gradient:
 * p -= lr * weightDecay * p; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 * p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon).
 *
 * With `master` the step is made on the f32 master and `parameter` is set to it, rounded. With
 * compact `rows`, only those rows are touched: decay and moments of all others are left alone, as in
 * PyTorch's SparseAdam, while the bias correction follows the global `step`.
 */
export interface AdamwCall<B = DeviceBuffer> {
  rows: number;
  columns: number;
  /** [rows, columns], any float, updated in place. */
  parameter: B;
  /** [rows, columns], f32, updated in place. */
  master?: B;
  /** [rows, columns], f32, updated in place. */
  firstMoment: B;
  /** [rows, columns], f32, updated in place. */
  secondMoment: B;
  /** f32: [rows, columns], or with `compact` [capacity, columns]. */
  gradient: B;
  compact?: {
    /** Rows that `gradient` and `ids` have room for. */
    capacity: number;
    /**
     * [capacity], i32: the used rows ascending, each once. An id outside [0, rows) is passed over, and
     * reported as in `experts`.
     */
    ids: B;
    /** [1], i32: how many of them are used. Outside [0, capacity]: clamped, and reported likewise. */
    count: B;
  };
  /** Global step, from 1. */
  step: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Multiplies the gradient first: 1, or less to clip. */
  gradientScale: number;
}

/** Every op, by name, with its call. */
export interface OpCalls<B = DeviceBuffer> {
  linear: LinearCall<B>;
  batchNormForward: BatchNormForwardCall<B>;
  batchNormBackward: BatchNormBackwardCall<B>;
  routerSelectForward: RouterSelectForwardCall<B>;
  routerSelectBackward: RouterSelectBackwardCall<B>;
  expertsForward: ExpertsForwardCall<B>;
  expertsBackward: ExpertsBackwardCall<B>;
  mlpForward: MlpForwardCall<B>;
  mlpBackward: MlpBackwardCall<B>;
  adamw: AdamwCall<B>;
}

export type OpName = keyof OpCalls;

/** All op names, in the order in which they are listed to people. */
export const opNames: readonly OpName[] = [
  "linear",
  "batchNormForward",
  "batchNormBackward",
  "routerSelectForward",
  "routerSelectBackward",
  "expertsForward",
  "expertsBackward",
  "mlpForward",
  "mlpBackward",
  "adamw",
];

/** The ops as functions: each enqueues its work and returns. */
export type Ops<B = DeviceBuffer> = { readonly [Name in OpName]: (call: OpCalls<B>[Name]) => void };
