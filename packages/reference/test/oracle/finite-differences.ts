import { expect } from "vitest";

/** The loss whose gradient is `cotangent`: the sum of the products. */
export function inner(values: Float64Array, cotangent: Float64Array): number {
  return values.reduce((sum, value, n) => sum + value * cotangent[n], 0);
}

/**
 * Compares `gradient` with central differences of `loss` in every element of `variable`, which is put back:
 * max |difference| / max |gradient| must be below 1e-6.
 */
export function expectGradient(
  name: string,
  loss: () => number,
  variable: Float64Array,
  gradient: Float64Array,
): void {
  expect(gradient.length, name).toBe(variable.length);
  const step = 1e-5;
  let error = 0;
  let scale = 0;
  for (let n = 0; n < variable.length; n++) {
    const value = variable[n];
    variable[n] = value + step;
    const above = loss();
    variable[n] = value - step;
    const below = loss();
    variable[n] = value;
    const numeric = (above - below) / (2 * step);
    // Math.max carries a NaN along.
    error = Math.max(error, Math.abs(numeric - gradient[n]));
    scale = Math.max(scale, Math.abs(numeric));
  }
  expect(scale, `${name}: the gradient must not be trivial`).toBeGreaterThan(1e-4);
  expect(error / scale, name).toBeLessThan(1e-6);
}
