import type { Activation } from "@flash-moe/core";
import { activationFunction } from "../../oracle/activation.js";
import { sumError, unitRoundoff } from "../tolerance.js";
import { activationError, slopeError } from "./approximate.js";

const u = unitRoundoff.f32;

export interface ExpertsNumbers {
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly numExperts: number;
  readonly topK: number;
  readonly activation: Activation;
  /** [T, H]. */
  readonly hiddenStates: Float64Array;
  /** [N, H]. */
  readonly down: Float64Array;
  /** [N, H]. */
  readonly up: Float64Array;
  /** [T, k]. */
  readonly ids: Int32Array;
  /** [T, k]. */
  readonly weights: Float64Array;
}

/** a . b over `length`, and the error of summing it in f32. */
function dot(
  a: Float64Array,
  aStart: number,
  b: Float64Array,
  bStart: number,
  length: number,
): { value: number; error: number } {
  let value = 0;
  let absolute = 0;
  for (let h = 0; h < length; h++) {
    const product = a[aStart + h] * b[bStart + h];
    value += product;
    absolute += Math.abs(product);
  }
  return { value, error: sumError(length) * absolute };
}

/** Errors of the experts' output in f32, [T, H]; `addend` may be the first term of the sum. */
export function expertsForwardErrors(numbers: ExpertsNumbers, addend?: Float64Array): Float64Array {
  const { tokens, hiddenSize, numExperts, topK, hiddenStates, down, up, ids, weights } = numbers;
  const act = activationFunction(numbers.activation);
  const errors = new Float64Array(tokens * hiddenSize);
  const share = sumError(topK + 1) + 2 * u;
  if (addend !== undefined) for (let n = 0; n < errors.length; n++) errors[n] = share * Math.abs(addend[n]);
  for (let pair = 0; pair < tokens * topK; pair++) {
    const id = ids[pair];
    if (id < 0 || id >= numExperts) continue;
    const start = Math.floor(pair / topK) * hiddenSize;
    const a = dot(hiddenStates, start, down, id * hiddenSize, hiddenSize);
    const value = act.value(a.value);
    const scale = activationError(a.value, value, a.error) + share * Math.abs(value);
    const weight = Math.abs(weights[pair]);
    for (let h = 0; h < hiddenSize; h++) {
      errors[start + h] += weight * scale * Math.abs(up[id * hiddenSize + h]);
    }
  }
  return errors;
}

export interface ExpertsBackwardErrors {
  /** [T, H]. */
  readonly gradHiddenStates: Float64Array;
  /** [T, k]. */
  readonly gradWeights: Float64Array;
  /** [N, H]. */
  readonly gradDown: Float64Array;
  /** [N, H]. */
  readonly gradUp: Float64Array;
}

/** Errors of all gradients in f32, those of the tables dense. */
export function expertsBackwardErrors(
  numbers: ExpertsNumbers,
  gradOutput: Float64Array,
): ExpertsBackwardErrors {
  const { tokens, hiddenSize, numExperts, topK, activation, hiddenStates, down, up, ids, weights } = numbers;
  const act = activationFunction(activation);
  const gradHiddenStates = new Float64Array(tokens * hiddenSize);
  const gradWeights = new Float64Array(tokens * topK);
  const gradDown = new Float64Array(numExperts * hiddenSize);
  const gradUp = new Float64Array(numExperts * hiddenSize);
  const uses = new Int32Array(numExperts);
  for (const id of ids) if (id >= 0 && id < numExperts) uses[id]++;
  for (let pair = 0; pair < tokens * topK; pair++) {
    const id = ids[pair];
    if (id < 0 || id >= numExperts) continue;
    const start = Math.floor(pair / topK) * hiddenSize;
    const row = id * hiddenSize;
    const a = dot(hiddenStates, start, down, row, hiddenSize);
    const q = dot(gradOutput, start, up, row, hiddenSize);
    const value = act.value(a.value);
    const slope = act.derivative(a.value);
    const valueError = activationError(a.value, value, a.error);
    const qSize = Math.abs(q.value) + q.error;
    const weight = Math.abs(weights[pair]);
    gradWeights[pair] = Math.abs(value) * q.error + qSize * (valueError + 2 * u * Math.abs(value));

    const c = weight * Math.abs(slope) * qSize;
    const cError =
      weight * (Math.abs(slope) * q.error + qSize * slopeError(activation, a.value, a.error)) + 4 * u * c;
    const g = weight * Math.abs(value);
    const gError = weight * valueError + 4 * u * g;
    const perToken = cError + (sumError(topK) + u) * c;
    const perExpert = sumError(uses[id]) + u;
    for (let h = 0; h < hiddenSize; h++) {
      gradHiddenStates[start + h] += perToken * Math.abs(down[row + h]);
      gradDown[row + h] += (cError + perExpert * c) * Math.abs(hiddenStates[start + h]);
      gradUp[row + h] += (gError + perExpert * g) * Math.abs(gradOutput[start + h]);
    }
  }
  return { gradHiddenStates, gradWeights, gradDown, gradUp };
}
