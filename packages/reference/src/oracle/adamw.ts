import type { FloatArray } from "./float-array.js";

export interface AdamwSettings {
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

/** `parameter` and the moments are updated in place, computed in float64 and rounded once as they are stored. */
export interface AdamwState {
  parameter: FloatArray;
  firstMoment: FloatArray;
  secondMoment: FloatArray;
  gradient: FloatArray;
}

/** Elements `start` up to `start + length`, whose gradients begin at `gradientStart`. */
export interface AdamwRange {
  start: number;
  gradientStart: number;
  length: number;
}

/**
 * One step of PyTorch's AdamW (decoupled weight decay) on a range. With g = gradientScale * gradient:
 *
 *     p <- p - learningRate * weightDecay * p
 *     m <- beta1 m + (1 - beta1) g
 *     v <- beta2 v + (1 - beta2) g^2
 *     p <- p - learningRate / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
 */
export function adamwRange(state: AdamwState, settings: AdamwSettings, range: AdamwRange): void {
  updateRange(state, settings, stepConstants(settings), range.start, range.gradientStart, range.length);
}

export interface AdamwRows {
  /** Rows of the parameter; an id outside [0, rows) is passed over. */
  rows: number;
  /** Elements of a row. */
  columns: number;
  /** Used rows, ascending: row r of the gradient belongs to row ids[r] of the parameter. */
  ids: Int32Array;
  /** How many of `ids` count. */
  count: number;
}

/**
 * The same step on used rows only, `gradient` being compact. Other rows keep their moments and do not
 * decay, as in PyTorch's SparseAdam, while the bias correction follows the global step.
 */
export function adamwRows(state: AdamwState, settings: AdamwSettings, compact: AdamwRows): void {
  const { rows, columns, ids, count } = compact;
  const constants = stepConstants(settings);
  for (let r = 0; r < count; r++) {
    if (ids[r] < 0 || ids[r] >= rows) continue;
    updateRange(state, settings, constants, ids[r] * columns, r * columns, columns);
  }
}

interface StepConstants {
  keep: number;
  stepSize: number;
  secondCorrection: number;
}

function stepConstants(settings: AdamwSettings): StepConstants {
  const { step, learningRate, beta1, beta2, weightDecay } = settings;
  return {
    keep: 1 - learningRate * weightDecay,
    stepSize: learningRate / (1 - beta1 ** step),
    secondCorrection: Math.sqrt(1 - beta2 ** step),
  };
}

function updateRange(
  state: AdamwState,
  settings: AdamwSettings,
  constants: StepConstants,
  start: number,
  gradientStart: number,
  length: number,
): void {
  const { parameter, firstMoment, secondMoment, gradient } = state;
  const { beta1, beta2, epsilon, gradientScale } = settings;
  const { keep, stepSize, secondCorrection } = constants;
  for (let n = 0; n < length; n++) {
    const at = start + n;
    const g = gradientScale * gradient[gradientStart + n];
    const first = beta1 * firstMoment[at] + (1 - beta1) * g;
    const second = beta2 * secondMoment[at] + (1 - beta2) * g * g;
    firstMoment[at] = first;
    secondMoment[at] = second;
    parameter[at] =
      keep * parameter[at] - (stepSize * first) / (Math.sqrt(second) / secondCorrection + epsilon);
  }
}
