import type { Activation, FloatDType } from "@flash-moe/core";
import { activationFunction } from "../../oracle/activation.js";
import { type MatmulShape, matmul as matmulFloat64 } from "../../oracle/matmul.js";
import { roundingFloor, sumError, unitRoundoff } from "../tolerance.js";

/**
 * Values in float64 and, for each, a bound on the error of computing it in f32 (running error analysis, to
 * first order). Composing these functions as an op composes its formula gives the tolerance of the op.
 */
export interface Approximate {
  readonly values: Float64Array;
  readonly errors: Float64Array;
}

const u = unitRoundoff.f32;

/** Numbers that the device holds exactly. */
export function exact(values: ArrayLike<number>): Approximate {
  return { values: Float64Array.from(values), errors: new Float64Array(values.length) };
}

/** start + a, where a is a sum of `length` terms that may be added to `start` one by one. */
export function addToStart(start: ArrayLike<number>, a: Approximate, length: number): Approximate {
  const share = sumError(length + 1);
  const values = a.values.map((value, n) => start[n] + value);
  const errors = values.map((value, n) => a.errors[n] + share * Math.abs(start[n]) + u * Math.abs(value));
  return { values, errors };
}

/** a * b, elementwise, rounded once. */
export function multiply(a: Approximate, b: Approximate): Approximate {
  const values = a.values.map((value, n) => value * b.values[n]);
  const errors = values.map(
    (value, n) =>
      a.errors[n] * Math.abs(b.values[n]) + Math.abs(a.values[n]) * b.errors[n] + u * Math.abs(value),
  );
  return { values, errors };
}

/** Rounded to `dtype` on the way. */
export function rounded(a: Approximate, dtype: FloatDType): Approximate {
  if (dtype === "f32") return a;
  const floor = roundingFloor(dtype);
  return {
    values: a.values,
    errors: a.errors.map((e, n) => e + Math.max(unitRoundoff[dtype] * Math.abs(a.values[n]), floor)),
  };
}

/** op(a) op(b), every output summed in f32 in any order. */
export function matmul(a: Approximate, b: Approximate, shape: MatmulShape): Approximate {
  const absoluteA = a.values.map(Math.abs);
  const absoluteB = b.values.map(Math.abs);
  const share = sumError(shape.inner);
  const errors = matmulFloat64(absoluteA, absoluteB, shape).map((sum) => share * sum);
  if (a.errors.some((error) => error > 0)) addTo(errors, matmulFloat64(a.errors, absoluteB, shape));
  if (b.errors.some((error) => error > 0)) addTo(errors, matmulFloat64(absoluteA, b.errors, shape));
  return { values: matmulFloat64(a.values, b.values, shape), errors };
}

/** act(a). */
export function activate(a: Approximate, activation: Activation): Approximate {
  const act = activationFunction(activation);
  const values = a.values.map((x) => act.value(x));
  const errors = values.map((value, n) => activationError(a.values[n], value, a.errors[n]));
  return { values, errors };
}

/** act'(a). */
export function activationSlope(a: Approximate, activation: Activation): Approximate {
  const act = activationFunction(activation);
  const values = a.values.map((x) => act.derivative(x));
  const errors = values.map((_, n) => slopeError(activation, a.values[n], a.errors[n]));
  return { values, errors };
}

/**
 * Error of act(x) = value when x has an error of its own. No slope exceeds 1.13; exp on a GPU is good to
 * 3 + 2 |x| units in the last place, and 1 + erf cancels for negative x.
 */
export function activationError(x: number, value: number, error: number): number {
  return 1.13 * error + u * ((16 + 4 * Math.abs(x)) * Math.abs(value) + 8 * Math.abs(x));
}

/** Error of act'(x): no second derivative exceeds 1.2, but the slope of relu jumps at 0, unless x is 0 exactly. */
export function slopeError(activation: Activation, x: number, error: number): number {
  if (activation === "relu") return error > 0 && Math.abs(x) <= error ? 1 : 0;
  return 1.2 * error + u * (16 + 16 * Math.abs(x));
}

function addTo(target: Float64Array, terms: Float64Array): void {
  for (let n = 0; n < target.length; n++) target[n] += terms[n];
}
