import { sumError, unitRoundoff } from "../tolerance.js";

const u = unitRoundoff.f32;

export interface BatchNormNumbers {
  readonly tokens: number;
  readonly features: number;
  readonly epsilon: number;
  /** [T, F]. */
  readonly input: Float64Array;
}

export interface BatchNormTrainingErrors {
  readonly output: Float64Array;
  readonly mean: Float64Array;
  readonly variance: Float64Array;
  readonly runningMean: Float64Array;
  readonly runningVariance: Float64Array;
}

/**
 * Errors of the training forward in f32 with two passes. With e the error of the mean, the variance
 * gains e^2 (the terms linear in e cancel), where E[x^2] - E[x]^2 would gain u E[x^2].
 */
export function batchNormTrainingErrors(
  numbers: BatchNormNumbers & {
    readonly momentum: number;
    readonly runningMean: Float64Array;
    readonly runningVariance: Float64Array;
  },
): BatchNormTrainingErrors {
  const { tokens, features, epsilon, input, momentum, runningMean, runningVariance } = numbers;
  const output = new Float64Array(tokens * features);
  const mean = new Float64Array(features);
  const variance = new Float64Array(features);
  const runningMeanError = new Float64Array(features);
  const runningVarianceError = new Float64Array(features);
  const share = sumError(tokens) + 2 * u;
  for (let f = 0; f < features; f++) {
    let sum = 0;
    let absolute = 0;
    for (let t = 0; t < tokens; t++) {
      sum += input[t * features + f];
      absolute += Math.abs(input[t * features + f]);
    }
    const centre = sum / tokens;
    let spread = 0;
    for (let t = 0; t < tokens; t++) spread += (input[t * features + f] - centre) ** 2;
    spread /= tokens;
    mean[f] = (share * absolute) / tokens;
    variance[f] = mean[f] ** 2 + (share + 4 * u) * spread;
    const rstd = 1 / Math.sqrt(spread + epsilon);
    // Half the relative error of variance + epsilon, plus the roundings of the root and the product.
    const scaleError = (0.5 * variance[f]) / (spread + epsilon) + 8 * u;
    for (let t = 0; t < tokens; t++) {
      const centred = Math.abs(input[t * features + f] - centre);
      output[t * features + f] = rstd * (mean[f] + u * centred + scaleError * centred);
    }
    const unbiased = tokens / (tokens - 1);
    mean[f] += u * Math.abs(centre);
    const newMean = momentum * Math.abs(centre);
    const newVariance = momentum * spread * unbiased;
    runningMeanError[f] = momentum * mean[f] + 4 * u * (newMean + Math.abs(runningMean[f]));
    runningVarianceError[f] =
      momentum * unbiased * variance[f] + 4 * u * (newVariance + Math.abs(runningVariance[f]));
  }
  return { output, mean, variance, runningMean: runningMeanError, runningVariance: runningVarianceError };
}

/**
 * Errors of the gradient of the input. In training `mean` and `variance` are those of the batch, given to the op
 * rounded to f32: the rounding of the mean shifts n by the same amount in every token.
 */
export function batchNormBackwardErrors(
  numbers: BatchNormNumbers & {
    readonly training: boolean;
    readonly mean: Float64Array;
    readonly variance: Float64Array;
    readonly gradOutput: Float64Array;
  },
): Float64Array {
  const { tokens, features, epsilon, input, training, mean, variance, gradOutput } = numbers;
  const errors = new Float64Array(tokens * features);
  const share = sumError(tokens) + 12 * u;
  for (let f = 0; f < features; f++) {
    const rstd = 1 / Math.sqrt(variance[f] + epsilon);
    let absoluteGrad = 0;
    let absoluteProduct = 0;
    let product = 0;
    let grad = 0;
    for (let t = 0; t < tokens; t++) {
      const at = t * features + f;
      const normalized = (input[at] - mean[f]) * rstd;
      grad += gradOutput[at] / tokens;
      product += (gradOutput[at] * normalized) / tokens;
      absoluteGrad += Math.abs(gradOutput[at]) / tokens;
      absoluteProduct += Math.abs(gradOutput[at] * normalized) / tokens;
    }
    const shift = u * Math.abs(mean[f]) * rstd;
    for (let t = 0; t < tokens; t++) {
      const at = t * features + f;
      const normalized = Math.abs((input[at] - mean[f]) * rstd);
      const own = 12 * u * Math.abs(gradOutput[at]);
      const throughBatch =
        share * (absoluteGrad + normalized * absoluteProduct) +
        12 * u * (Math.abs(grad) + normalized * Math.abs(product)) +
        shift * (Math.abs(product) + (normalized + shift) * Math.abs(grad));
      errors[at] = rstd * (training ? own + throughBatch : own);
    }
  }
  return errors;
}
