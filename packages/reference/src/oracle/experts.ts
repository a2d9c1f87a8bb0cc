import type { Activation } from "@flash-moe/core";
import { activationFunction } from "./activation.js";
import { type ExpertGroups, groupPairsByExpert } from "./expert-groups.js";
import { addScaled, dot } from "./vector.js";

/**
 * Decodes row `id` of a table into `target`, [H]. Only the rows in use are ever asked for, so that a
 * table of a million experts is not converted whole.
 */
export type ReadRow = (id: number, target: Float64Array) => void;

/** The rows of a table held in float64, [N, H]. */
export function rowsOf(table: Float64Array, hiddenSize: number): ReadRow {
  return (id, target) => {
    for (let h = 0, at = id * hiddenSize; h < hiddenSize; h++, at++) target[h] = table[at];
  };
}

export interface ExpertsForwardParams {
  tokens: number;
  hiddenSize: number;
  /** N. An id outside [0, N) adds nothing and has zero gradients. */
  numExperts: number;
  topK: number;
  activation: Activation;
  /** x, [T, H]. */
  hiddenStates: Float64Array;
  /** Rows of the first projection, [N, H]: hidden to scalar. */
  down: ReadRow;
  /** Rows of the second projection, [N, H]: scalar to hidden. */
  up: ReadRow;
  /** [T, k]. The same id may occur twice in a token: both count. */
  ids: Int32Array;
  /** w, [T, k]. */
  weights: Float64Array;
}

/**
 * The output of the experts, [T, H], slots added in order:
 *
 *     a_j = x . down[id_j],   output = sum_j act(a_j) w_j up[id_j]
 */
export function expertsForward(params: ExpertsForwardParams): Float64Array {
  const { tokens, hiddenSize, numExperts, topK, hiddenStates, down, up, ids, weights } = params;
  const act = activationFunction(params.activation);
  const output = new Float64Array(tokens * hiddenSize);
  const downRow = new Float64Array(hiddenSize);
  const upRow = new Float64Array(hiddenSize);
  for (let pair = 0; pair < tokens * topK; pair++) {
    const id = ids[pair];
    if (id < 0 || id >= numExperts) continue;
    const start = Math.floor(pair / topK) * hiddenSize;
    down(id, downRow);
    up(id, upRow);
    const a = dot(hiddenStates, start, downRow, 0, hiddenSize);
    addScaled(output, start, act.value(a) * weights[pair], upRow, 0, hiddenSize);
  }
  return output;
}

export interface ExpertsBackwardParams extends ExpertsForwardParams {
  /** g, [T, H]. */
  gradOutput: Float64Array;
  /** True: gradHiddenStates is not computed, and empty. */
  skipGradHiddenStates?: boolean;
}

export interface ExpertsBackwardResult {
  /** [T, H]. */
  gradHiddenStates: Float64Array;
  /** [T, k]. */
  gradWeights: Float64Array;
  /** [T, k]: what a pair gives to the row of its expert in the gradient of `down`, times x[t]. */
  downCoefficients: Float64Array;
  /** [T, k]: what a pair gives to the row of its expert in the gradient of `up`, times gradOutput[t]. */
  upCoefficients: Float64Array;
}

/**
 * The gradients per token, and what `expertsTableGradient` needs for those of the tables. For every pair
 * (t, j), with a_j as in the forward, g = gradOutput[t] and u_j = g . up[id_j]:
 *
 *     gradWeights[t, j]   = act(a_j) u_j
 *     gradHiddenStates[t] = sum_j c_j down[id_j],   c_j = w_j act'(a_j) u_j
 *     gradDown[e]         = sum over the pairs with id e of c_j x[t]
 *     gradUp[e]           = sum over the pairs with id e of act(a_j) w_j g
 */
export function expertsBackward(params: ExpertsBackwardParams): ExpertsBackwardResult {
  const { tokens, hiddenSize, numExperts, topK, hiddenStates, down, up, ids, weights, gradOutput } = params;
  const { skipGradHiddenStates = false } = params;
  const act = activationFunction(params.activation);
  const gradHiddenStates = new Float64Array(skipGradHiddenStates ? 0 : tokens * hiddenSize);
  const gradWeights = new Float64Array(tokens * topK);
  const downCoefficients = new Float64Array(tokens * topK);
  const upCoefficients = new Float64Array(tokens * topK);
  const downRow = new Float64Array(hiddenSize);
  const upRow = new Float64Array(hiddenSize);
  for (let pair = 0; pair < tokens * topK; pair++) {
    const id = ids[pair];
    if (id < 0 || id >= numExperts) continue;
    const start = Math.floor(pair / topK) * hiddenSize;
    down(id, downRow);
    up(id, upRow);
    const a = dot(hiddenStates, start, downRow, 0, hiddenSize);
    const u = dot(gradOutput, start, upRow, 0, hiddenSize);
    const activated = act.value(a);
    gradWeights[pair] = activated * u;
    upCoefficients[pair] = activated * weights[pair];
    downCoefficients[pair] = weights[pair] * act.derivative(a) * u;
    if (skipGradHiddenStates) continue;
    addScaled(gradHiddenStates, start, downCoefficients[pair], downRow, 0, hiddenSize);
  }
  return { gradHiddenStates, gradWeights, downCoefficients, upCoefficients };
}

export interface ExpertsTableGradientParams {
  hiddenSize: number;
  topK: number;
  groups: ExpertGroups;
  /** [T, k]: `downCoefficients` or `upCoefficients`. */
  coefficients: Float64Array;
  /** [T, H]: `hiddenStates` for down, `gradOutput` for up. */
  states: Float64Array;
}

/**
 * The gradient of one table, row by row: `gradient = sum over the expert's pairs of coefficient states[t]`,
 * in the order of (token, slot). `store` is called for r = 0, 1, ... with the row of groups.ids[r], in an
 * array that the next row overwrites.
 */
export function expertsTableGradient(
  params: ExpertsTableGradientParams,
  store: (r: number, gradient: Float64Array) => void,
): void {
  const { hiddenSize, topK, groups, coefficients, states } = params;
  const { ids, starts, pairs } = groups;
  const gradient = new Float64Array(hiddenSize);
  for (let r = 0; r < ids.length; r++) {
    gradient.fill(0);
    for (let p = starts[r]; p < starts[r + 1]; p++) {
      const pair = pairs[p];
      addScaled(gradient, 0, coefficients[pair], states, Math.floor(pair / topK) * hiddenSize, hiddenSize);
    }
    store(r, gradient);
  }
}

export interface CompactTableGradients {
  /** [U]: the experts in use, ascending, each once. */
  ids: Int32Array;
  /** [U, H]: row r belongs to ids[r]. */
  down: Float64Array;
  /** [U, H]: row r belongs to ids[r]. */
  up: Float64Array;
}

/** The gradients of both tables in compact form, from what went into and came out of `expertsBackward`. */
export function expertsTableGradients(
  params: ExpertsBackwardParams,
  result: ExpertsBackwardResult,
): CompactTableGradients {
  const { hiddenSize, topK, hiddenStates, gradOutput } = params;
  const groups = groupPairsByExpert(params.ids, params.numExperts);
  function collect(coefficients: Float64Array, states: Float64Array): Float64Array {
    const rows = new Float64Array(groups.ids.length * hiddenSize);
    expertsTableGradient({ hiddenSize, topK, groups, coefficients, states }, (r, gradient) =>
      rows.set(gradient, r * hiddenSize),
    );
    return rows;
  }
  return {
    ids: groups.ids,
    down: collect(result.downCoefficients, hiddenStates),
    up: collect(result.upCoefficients, gradOutput),
  };
}
