import type { Activation } from "@flash-moe/core";
import { activationFunction } from "./activation.js";
import type { FloatArray } from "./float-array.js";
import { matmul } from "./matmul.js";

export interface MlpForwardParams {
  tokens: number;
  hiddenSize: number;
  intermediateSize: number;
  activation: Activation;
  /** x, [T, H]. */
  hiddenStates: FloatArray;
  /** Wg, [I, H]. */
  gate: FloatArray;
  /** Wu, [I, H]. */
  up: FloatArray;
  /** Wd, [H, I]. */
  down: FloatArray;
}

/** The output of the shared MLP, [T, H]: `(act(x Wg^T) * (x Wu^T)) Wd^T`. */
export function mlpForward(params: MlpForwardParams): Float64Array {
  const { tokens, hiddenSize, intermediateSize, down } = params;
  const act = activationFunction(params.activation);
  const { gated, linear } = projections(params);
  const intermediate = new Float64Array(tokens * intermediateSize);
  for (let n = 0; n < intermediate.length; n++) intermediate[n] = act.value(gated[n]) * linear[n];
  return matmul(intermediate, down, {
    rows: tokens,
    inner: intermediateSize,
    columns: hiddenSize,
    transposeB: true,
  });
}

export interface MlpBackwardParams extends MlpForwardParams {
  /** [T, H]. */
  gradOutput: FloatArray;
}

export interface MlpBackwardResult {
  /** [T, H]. */
  gradHiddenStates: Float64Array;
  /** [I, H]. */
  gradGate: Float64Array;
  /** [I, H]. */
  gradUp: Float64Array;
  /** [H, I]. */
  gradDown: Float64Array;
}

/**
 * The gradients of `mlpForward`. With a = x Wg^T, b = x Wu^T, g = gradOutput and dh = g Wd:
 *
 *     gradDown = g^T (act(a) * b)
 *     da = dh * b * act'(a),    gradGate = da^T x
 *     db = dh * act(a),         gradUp   = db^T x
 *     gradHiddenStates = da Wg + db Wu
 */
export function mlpBackward(params: MlpBackwardParams): MlpBackwardResult {
  const intermediates = mlpBackwardIntermediates(params);
  return {
    gradHiddenStates: mlpGradHiddenStates(params, intermediates),
    gradGate: mlpGradGate(params, intermediates),
    gradUp: mlpGradUp(params, intermediates),
    gradDown: mlpGradDown(params, intermediates),
  };
}

/** What the four gradients are made from, each [T, I]; names as in `mlpBackward`. */
export interface MlpBackwardIntermediates {
  /** act(a) * b. */
  intermediate: Float64Array;
  /** da. */
  gradGated: Float64Array;
  /** db. */
  gradLinear: Float64Array;
}

export function mlpBackwardIntermediates(params: MlpBackwardParams): MlpBackwardIntermediates {
  const { tokens, hiddenSize, intermediateSize, down, gradOutput } = params;
  const act = activationFunction(params.activation);
  const { gated, linear } = projections(params);
  const gradIntermediate = matmul(gradOutput, down, {
    rows: tokens,
    inner: hiddenSize,
    columns: intermediateSize,
  });
  const size = tokens * intermediateSize;
  const intermediate = new Float64Array(size);
  const gradGated = new Float64Array(size);
  const gradLinear = new Float64Array(size);
  for (let n = 0; n < size; n++) {
    const activated = act.value(gated[n]);
    intermediate[n] = activated * linear[n];
    gradGated[n] = gradIntermediate[n] * linear[n] * act.derivative(gated[n]);
    gradLinear[n] = gradIntermediate[n] * activated;
  }
  return { intermediate, gradGated, gradLinear };
}

export function mlpGradHiddenStates(
  params: MlpBackwardParams,
  { gradGated, gradLinear }: MlpBackwardIntermediates,
): Float64Array {
  const { tokens, hiddenSize, intermediateSize, gate, up } = params;
  const shape = { rows: tokens, inner: intermediateSize, columns: hiddenSize };
  const gradHiddenStates = matmul(gradGated, gate, shape);
  const throughUp = matmul(gradLinear, up, shape);
  for (let n = 0; n < gradHiddenStates.length; n++) gradHiddenStates[n] += throughUp[n];
  return gradHiddenStates;
}

export function mlpGradGate(
  params: MlpBackwardParams,
  { gradGated }: MlpBackwardIntermediates,
): Float64Array {
  const { tokens, hiddenSize, intermediateSize, hiddenStates } = params;
  const shape = { rows: intermediateSize, inner: tokens, columns: hiddenSize, transposeA: true };
  return matmul(gradGated, hiddenStates, shape);
}

export function mlpGradUp(params: MlpBackwardParams, { gradLinear }: MlpBackwardIntermediates): Float64Array {
  const { tokens, hiddenSize, intermediateSize, hiddenStates } = params;
  const shape = { rows: intermediateSize, inner: tokens, columns: hiddenSize, transposeA: true };
  return matmul(gradLinear, hiddenStates, shape);
}

export function mlpGradDown(
  params: MlpBackwardParams,
  { intermediate }: MlpBackwardIntermediates,
): Float64Array {
  const { tokens, hiddenSize, intermediateSize, gradOutput } = params;
  const shape = { rows: hiddenSize, inner: tokens, columns: intermediateSize, transposeA: true };
  return matmul(gradOutput, intermediate, shape);
}

/** gated = x Wg^T and linear = x Wu^T, both [T, I]. */
function projections(params: MlpForwardParams): { gated: Float64Array; linear: Float64Array } {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, gate, up } = params;
  const shape = { rows: tokens, inner: hiddenSize, columns: intermediateSize, transposeB: true };
  return { gated: matmul(hiddenStates, gate, shape), linear: matmul(hiddenStates, up, shape) };
}
