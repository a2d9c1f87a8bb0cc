import type { FloatArray } from "./float-array.js";

// BatchNorm1d with affine = False: T tokens, F features, [T, F] row-major.

export interface BatchNormEvaluationParams {
  tokens: number;
  features: number;
  epsilon: number;
  /** [T, F]. */
  input: FloatArray;
  /** [F]. */
  mean: Float64Array;
  /** [F]. */
  variance: Float64Array;
}

/** Evaluation: `output[t, f] = (input[t, f] - mean[f]) / sqrt(variance[f] + epsilon)`, [T, F]. */
export function batchNormEvaluationForward(params: BatchNormEvaluationParams): Float64Array {
  const { tokens, features, epsilon, input, mean, variance } = params;
  const rstd = reciprocalDeviation(variance, epsilon);
  const output = new Float64Array(tokens * features);
  for (let t = 0; t < tokens; t++) {
    for (let f = 0; f < features; f++) {
      const at = t * features + f;
      output[at] = (input[at] - mean[f]) * rstd[f];
    }
  }
  return output;
}

export interface BatchStatisticsParams {
  tokens: number;
  features: number;
  /** [T, F]. */
  input: FloatArray;
}

/** [F] each. */
export interface BatchStatistics {
  /** `sum_t input[t] / T`. */
  mean: Float64Array;
  /** Biased: `sum_t (input[t] - mean)^2 / T`. */
  variance: Float64Array;
}

/** The statistics of a batch, in two passes: E[x^2] - E[x]^2 cancels when the mean is large. */
export function batchStatistics({ tokens, features, input }: BatchStatisticsParams): BatchStatistics {
  const mean = new Float64Array(features);
  for (let t = 0; t < tokens; t++) {
    for (let f = 0; f < features; f++) mean[f] += input[t * features + f];
  }
  for (let f = 0; f < features; f++) mean[f] /= tokens;

  const variance = new Float64Array(features);
  for (let t = 0; t < tokens; t++) {
    for (let f = 0; f < features; f++) {
      const centred = input[t * features + f] - mean[f];
      variance[f] += centred * centred;
    }
  }
  for (let f = 0; f < features; f++) variance[f] /= tokens;
  return { mean, variance };
}

export interface BatchNormTrainingParams {
  /** At least 2: one token has no variance. */
  tokens: number;
  features: number;
  epsilon: number;
  /** The share of the batch in the new running statistics. */
  momentum: number;
  /** [T, F]. */
  input: FloatArray;
  /** [F], read only. */
  runningMean: Float64Array;
  /** [F], read only. */
  runningVariance: Float64Array;
}

export interface BatchNormTrainingResult extends BatchStatistics {
  /** [T, F]. */
  output: Float64Array;
  /** [F]: updated. */
  runningMean: Float64Array;
  /** [F]: updated. */
  runningVariance: Float64Array;
}

/**
 * Training: the evaluation formula with the mean and the variance of `batchStatistics`,
 *
 *     runningMean'     = (1 - momentum) runningMean     + momentum mean
 *     runningVariance' = (1 - momentum) runningVariance + momentum variance T / (T - 1)
 */
export function batchNormTrainingForward(params: BatchNormTrainingParams): BatchNormTrainingResult {
  const { tokens, features, epsilon, momentum, input } = params;
  const { mean, variance } = batchStatistics(params);
  const unbiased = tokens / (tokens - 1);
  return {
    output: batchNormEvaluationForward({ tokens, features, epsilon, input, mean, variance }),
    mean,
    variance,
    runningMean: params.runningMean.map((old, f) => (1 - momentum) * old + momentum * mean[f]),
    runningVariance: params.runningVariance.map(
      (old, f) => (1 - momentum) * old + momentum * variance[f] * unbiased,
    ),
  };
}

export interface BatchNormBackwardParams {
  tokens: number;
  features: number;
  epsilon: number;
  training: boolean;
  /** [T, F]. */
  input: FloatArray;
  /** [F]: of the batch in training, the running one in evaluation. */
  mean: Float64Array;
  /** [F]: of the batch (biased) in training, the running one in evaluation. */
  variance: Float64Array;
  /** [T, F]. */
  gradOutput: FloatArray;
}

/**
 * The gradient of the input, [T, F]. With d = gradOutput, r = 1 / sqrt(variance + epsilon) and
 * n = (input - mean) r:
 *
 *     evaluation  gradInput = r d
 *     training    gradInput = r (d - sum_t d / T - n sum_t (d n) / T)
 *
 * The two sums are the gradient through the mean and through the variance.
 */
export function batchNormBackward(params: BatchNormBackwardParams): Float64Array {
  const { tokens, features, epsilon, training, input, mean, variance, gradOutput } = params;
  const rstd = reciprocalDeviation(variance, epsilon);
  const meanGrad = new Float64Array(features);
  const meanGradNormalized = new Float64Array(features);
  if (training) {
    for (let t = 0; t < tokens; t++) {
      for (let f = 0; f < features; f++) {
        const at = t * features + f;
        meanGrad[f] += gradOutput[at];
        meanGradNormalized[f] += gradOutput[at] * (input[at] - mean[f]) * rstd[f];
      }
    }
    for (let f = 0; f < features; f++) {
      meanGrad[f] /= tokens;
      meanGradNormalized[f] /= tokens;
    }
  }
  const gradInput = new Float64Array(tokens * features);
  for (let t = 0; t < tokens; t++) {
    for (let f = 0; f < features; f++) {
      const at = t * features + f;
      if (training) {
        const normalized = (input[at] - mean[f]) * rstd[f];
        gradInput[at] = rstd[f] * (gradOutput[at] - meanGrad[f] - normalized * meanGradNormalized[f]);
      } else {
        gradInput[at] = rstd[f] * gradOutput[at];
      }
    }
  }
  return gradInput;
}

function reciprocalDeviation(variance: Float64Array, epsilon: number): Float64Array {
  return variance.map((value) => 1 / Math.sqrt(value + epsilon));
}
