import { sumError, unitRoundoff } from "../tolerance.js";

const u = unitRoundoff.f32;

export interface RouterNumbers {
  readonly tokens: number;
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly normalizeWeights: boolean;
  /** [T, X + Y]. */
  readonly logits: ArrayLike<number>;
  /** [T, k]. */
  readonly ids: Int32Array;
}

/** Log-softmax of one axis, its values and a bound on their errors in f32. */
interface AxisLogs {
  readonly logs: Float64Array;
  readonly errors: Float64Array;
}

/** Relative error of exp(x): 3 + 2 |x| units in the last place on a GPU. Zero where the result is zero. */
function expError(x: number): number {
  return Number.isFinite(x) ? u * (8 + 4 * Math.abs(x)) : 0;
}

function axisLogs(logits: ArrayLike<number>, start: number, keys: number): AxisLogs {
  let max = Number.NEGATIVE_INFINITY;
  for (let key = 0; key < keys; key++) max = Math.max(max, logits[start + key]);
  let sum = 0;
  let sumErrors = 0;
  for (let key = 0; key < keys; key++) {
    const shifted = logits[start + key] - max;
    const term = Math.exp(shifted);
    sum += term;
    // One rounding of the difference shifts the exponent by u |difference|.
    if (term > 0) sumErrors += term * (expError(shifted) + u * Math.abs(shifted));
  }
  const logSum = Math.log(sum);
  const logSumError = sumErrors / sum + sumError(keys) + 4 * u * (1 + Math.abs(logSum));
  const logs = new Float64Array(keys);
  const errors = new Float64Array(keys);
  for (let key = 0; key < keys; key++) {
    const shifted = logits[start + key] - max;
    logs[key] = shifted - logSum;
    errors[key] = Number.isFinite(logs[key])
      ? logSumError + 2 * u * (Math.abs(shifted) + Math.abs(logSum))
      : 0;
  }
  return { logs, errors };
}

interface TokenWeights {
  readonly x: AxisLogs;
  readonly y: AxisLogs;
  readonly weights: Float64Array;
  readonly errors: Float64Array;
}

function tokenWeights(numbers: RouterNumbers, token: number): TokenWeights {
  const { keysX, keysY, topK, normalizeWeights, logits, ids } = numbers;
  const x = axisLogs(logits, token * (keysX + keysY), keysX);
  const y = axisLogs(logits, token * (keysX + keysY) + keysX, keysY);
  const scores = new Float64Array(topK);
  const scoreErrors = new Float64Array(topK);
  let best = 0;
  for (let slot = 0; slot < topK; slot++) {
    const id = ids[token * topK + slot];
    // An id of no expert counts as absent: as one of weight 0.
    if (id < 0 || id >= keysX * keysY) {
      scores[slot] = Number.NEGATIVE_INFINITY;
      continue;
    }
    const i = Math.floor(id / keysY);
    const j = id - i * keysY;
    scores[slot] = x.logs[i] + y.logs[j];
    scoreErrors[slot] = x.errors[i] + y.errors[j] + u * Math.abs(scores[slot]);
    if (scores[slot] > scores[best]) best = slot;
  }
  const shift = normalizeWeights ? scores[best] : 0;
  const weights = scores.map((score) => Math.exp(score - shift));
  const relative = scoreErrors.map(
    (error, slot) =>
      error + (normalizeWeights ? scoreErrors[best] : 0) + expError(scores[slot] - shift) + 4 * u,
  );
  if (normalizeWeights) {
    let sum = 0;
    let sumErrors = 0;
    for (let slot = 0; slot < topK; slot++) {
      sum += weights[slot];
      if (weights[slot] > 0) sumErrors += weights[slot] * relative[slot];
    }
    for (let slot = 0; slot < topK; slot++) {
      weights[slot] /= sum;
      relative[slot] += sumErrors / sum + sumError(topK) + 4 * u;
    }
  }
  // A weight that is not a number is compared as such, and needs no tolerance.
  const errors = weights.map((weight, slot) => (weight > 0 ? weight * relative[slot] : 0));
  return { x, y, weights, errors };
}

/** Errors of the routing weights in f32, [T, k]. */
export function routingWeightErrors(numbers: RouterNumbers): Float64Array {
  const errors = new Float64Array(numbers.tokens * numbers.topK);
  for (let t = 0; t < numbers.tokens; t++) errors.set(tokenWeights(numbers, t).errors, t * numbers.topK);
  return errors;
}

/** Errors of the gradient of the logits in f32, [T, X + Y]. */
export function routerBackwardErrors(numbers: RouterNumbers, gradWeights: Float64Array): Float64Array {
  const { tokens, keysX, keysY, topK, normalizeWeights, ids } = numbers;
  const all = new Float64Array(tokens * (keysX + keysY));
  for (let t = 0; t < tokens; t++) {
    const { x, y, weights, errors } = tokenWeights(numbers, t);
    const grads = gradWeights.subarray(t * topK, (t + 1) * topK);
    let mean = 0;
    let meanError = 0;
    if (normalizeWeights) {
      let absolute = 0;
      for (let slot = 0; slot < topK; slot++) {
        mean += weights[slot] * grads[slot];
        absolute += Math.abs(weights[slot] * grads[slot]);
        meanError += errors[slot] * Math.abs(grads[slot]);
      }
      meanError += sumError(topK) * absolute;
    }
    const ownX = new Float64Array(keysX);
    const ownY = new Float64Array(keysY);
    let total = 0;
    let totalError = 0;
    // Any sum below has at most k terms and the softmax term.
    const share = sumError(topK + 1) + u;
    for (let slot = 0; slot < topK; slot++) {
      const difference = Math.abs(grads[slot] - mean);
      const size = weights[slot] * difference;
      const error =
        errors[slot] * difference +
        weights[slot] * (meanError + 2 * u * (Math.abs(grads[slot]) + Math.abs(mean))) +
        2 * u * size +
        share * size;
      const id = ids[t * topK + slot];
      if (id < 0 || id >= keysX * keysY) continue;
      const i = Math.floor(id / keysY);
      ownX[i] += error;
      ownY[id - i * keysY] += error;
      total += weights[slot] * (grads[slot] - mean);
      totalError += error;
    }
    const start = t * (keysX + keysY);
    for (let key = 0; key < keysX; key++) {
      all[start + key] = ownX[key] + softmaxTermError(x, key, total, totalError);
    }
    for (let key = 0; key < keysY; key++) {
      all[start + keysX + key] = ownY[key] + softmaxTermError(y, key, total, totalError);
    }
  }
  return all;
}

/** Error of softmax[key] * total. */
function softmaxTermError(axis: AxisLogs, key: number, total: number, totalError: number): number {
  const probability = Math.exp(axis.logs[key]);
  if (!(probability > 0)) return 0;
  const relative = axis.errors[key] + expError(axis.logs[key]) + 4 * u;
  return probability * (totalError + relative * Math.abs(total));
}
