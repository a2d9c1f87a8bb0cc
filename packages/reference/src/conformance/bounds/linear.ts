import type { MatmulShape } from "../../oracle/matmul.js";
import { unitRoundoff } from "../tolerance.js";
import { type Approximate, addToStart, exact, matmul } from "./approximate.js";

const u = unitRoundoff.f32;

/** Statistics of an evaluation-mode normalisation, on the host. */
export interface HostNorm {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
  readonly epsilon: number;
}

export interface LinearNumbers extends MatmulShape {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly start?: Float64Array;
  readonly inputNorm?: HostNorm;
  readonly outputNorm?: HostNorm;
}

/** The product and the error of computing it in f32. */
export function linearApproximate(numbers: LinearNumbers): Approximate {
  const { a, b, start, inputNorm, outputNorm, inner, columns } = numbers;
  const input = inputNorm === undefined ? exact(a) : normalize(exact(a), inner, inputNorm);
  const product = matmul(input, exact(b), numbers);
  if (outputNorm !== undefined) return normalize(product, columns, outputNorm);
  return start === undefined ? product : addToStart(start, product, inner);
}

/**
 * (value - mean) / sqrt(variance + epsilon) per feature. The difference is one rounding, so an error does
 * not grow with the mean; folding the mean into the weights instead would exceed this.
 */
export function normalize(a: Approximate, features: number, norm: HostNorm): Approximate {
  const values = new Float64Array(a.values.length);
  const errors = new Float64Array(a.values.length);
  for (let n = 0; n < values.length; n++) {
    const feature = n % features;
    const rstd = 1 / Math.sqrt(norm.variance[feature] + norm.epsilon);
    values[n] = (a.values[n] - norm.mean[feature]) * rstd;
    errors[n] = a.errors[n] * rstd + 8 * u * Math.abs(values[n]);
  }
  return { values, errors };
}
