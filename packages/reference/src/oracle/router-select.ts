import type { FloatArray } from "./float-array.js";
import { createPairSelector, type PairSelectionShape } from "./pair-selection.js";

export interface RouterShape extends PairSelectionShape {
  tokens: number;
  /** Whether a token's routing weights are divided by their sum. */
  normalizeWeights: boolean;
}

export interface RouterSelectForwardParams extends RouterShape {
  /** [T, X + Y], the x keys first. */
  logits: Float32Array;
}

export interface RouterSelectForwardResult {
  /** [T, k]. */
  ids: Int32Array;
  /** [T, k]. */
  weights: Float64Array;
}

/** The k best experts of every token (see `createPairSelector`) and their weights (see `routingWeights`). */
export function routerSelectForward(params: RouterSelectForwardParams): RouterSelectForwardResult {
  const { tokens, keysX, keysY, topK, logits } = params;
  const select = createPairSelector({ keysX, keysY, topK });
  const ids = new Int32Array(tokens * topK);
  for (let t = 0; t < tokens; t++) select(logits, t * (keysX + keysY), ids, t * topK);
  return { ids, weights: routingWeights({ ...params, ids }) };
}

export interface RoutingWeightsParams extends RouterShape {
  /** [T, X + Y], the x keys first. */
  logits: FloatArray;
  /** [T, k]. An id outside [0, X * Y) has weight 0 and gives no gradient. */
  ids: Int32Array;
}

/**
 * The routing weights of given experts, [T, k]. With i = floor(id / Y), j = id mod Y:
 *
 *     p = log_softmax(lx)[i] + log_softmax(ly)[j]
 *     w = exp(p),   or with normalizeWeights   w = exp(p) / sum over the token's k of exp(p)
 *
 * The second is computed from the differences to the largest p, which do not all underflow. The logits
 * are not clamped here. As in PyTorch, a key at -inf has log-softmax -inf and weight 0 while another key of
 * its axis is finite; NaN, +inf, or an axis of nothing but -inf makes every weight of the token NaN. So does
 * normalizing over experts that all have log-softmax -inf.
 */
export function routingWeights(params: RoutingWeightsParams): Float64Array {
  const { tokens, topK } = params;
  const weights = new Float64Array(tokens * topK);
  const work = createTokenWork(params);
  for (let t = 0; t < tokens; t++) {
    computeToken(params, t, work);
    for (let slot = 0; slot < topK; slot++) weights[t * topK + slot] = work.weights[slot];
  }
  return weights;
}

export interface RouterSelectBackwardParams extends RoutingWeightsParams {
  /** [T, k]. */
  gradWeights: Float64Array;
}

/**
 * The gradient of the logits, [T, X + Y]; none flows through the choice of the ids. With g = gradWeights:
 *
 *     dp = g w,   or with normalizeWeights   dp = w (g - sum over the token's k of g w)
 *     dlx[a] = sum over the pairs with i = a of dp  -  softmax(lx)[a] * sum over all k of dp
 *
 * and dly the same with j. Pairs are added in the order of their slots.
 */
export function routerSelectBackward(params: RouterSelectBackwardParams): Float64Array {
  const { tokens, keysX, keysY, topK, normalizeWeights, logits, ids, gradWeights } = params;
  const gradLogits = new Float64Array(tokens * (keysX + keysY));
  const work = createTokenWork(params);
  for (let t = 0; t < tokens; t++) {
    computeToken(params, t, work);
    let weightedGrad = 0;
    if (normalizeWeights) {
      for (let slot = 0; slot < topK; slot++)
        weightedGrad += gradWeights[t * topK + slot] * work.weights[slot];
    }
    const startX = t * (keysX + keysY);
    const startY = startX + keysX;
    let total = 0;
    for (let slot = 0; slot < topK; slot++) {
      const id = ids[t * topK + slot];
      if (id < 0 || id >= keysX * keysY) continue;
      const gradLog = work.weights[slot] * (gradWeights[t * topK + slot] - weightedGrad);
      const i = Math.floor(id / keysY);
      gradLogits[startX + i] += gradLog;
      gradLogits[startY + id - i * keysY] += gradLog;
      total += gradLog;
    }
    subtractSoftmax(gradLogits, logits, startX, keysX, work.axisX, total);
    subtractSoftmax(gradLogits, logits, startY, keysY, work.axisY, total);
  }
  return gradLogits;
}

/** log_softmax(l)[i] = (l[i] - max) - logSum. */
interface Axis {
  max: number;
  logSum: number;
}

/** What is known of one token: its two axes, and its k weights. */
interface TokenWork {
  axisX: Axis;
  axisY: Axis;
  weights: Float64Array;
}

function createTokenWork(shape: RouterShape): TokenWork {
  return {
    axisX: { max: 0, logSum: 0 },
    axisY: { max: 0, logSum: 0 },
    weights: new Float64Array(shape.topK),
  };
}

function computeToken(params: RoutingWeightsParams, token: number, work: TokenWork): void {
  const { keysX, keysY, topK, normalizeWeights, logits, ids } = params;
  const { axisX, axisY, weights } = work;
  const startX = token * (keysX + keysY);
  const startY = startX + keysX;
  computeAxis(logits, startX, keysX, axisX);
  computeAxis(logits, startY, keysY, axisY);
  let largest = Number.NEGATIVE_INFINITY;
  for (let slot = 0; slot < topK; slot++) {
    const id = ids[token * topK + slot];
    if (id < 0 || id >= keysX * keysY) {
      weights[slot] = Number.NEGATIVE_INFINITY;
      continue;
    }
    const i = Math.floor(id / keysY);
    const logX = logits[startX + i] - axisX.max - axisX.logSum;
    const logY = logits[startY + id - i * keysY] - axisY.max - axisY.logSum;
    weights[slot] = logX + logY;
    if (weights[slot] > largest) largest = weights[slot];
  }
  const shift = normalizeWeights ? largest : 0;
  let sum = 0;
  for (let slot = 0; slot < topK; slot++) {
    weights[slot] = Math.exp(weights[slot] - shift);
    sum += weights[slot];
  }
  if (normalizeWeights) for (let slot = 0; slot < topK; slot++) weights[slot] /= sum;
}

function computeAxis(logits: FloatArray, start: number, keys: number, axis: Axis): void {
  // A NaN is passed over here, and reaches logSum through the sum.
  let max = Number.NEGATIVE_INFINITY;
  for (let key = 0; key < keys; key++) if (logits[start + key] > max) max = logits[start + key];
  let sum = 0;
  for (let key = 0; key < keys; key++) sum += Math.exp(logits[start + key] - max);
  axis.max = max;
  axis.logSum = Math.log(sum);
}

function subtractSoftmax(
  gradLogits: Float64Array,
  logits: FloatArray,
  start: number,
  keys: number,
  axis: Axis,
  total: number,
): void {
  for (let key = start; key < start + keys; key++) {
    gradLogits[key] -= Math.exp(logits[key] - axis.max - axis.logSum) * total;
  }
}
