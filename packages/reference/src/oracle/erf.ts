// Two formulas, each where it does not cancel. Below 1, the Maclaurin series (NIST DLMF 7.6.1). From 1 on, the
// trapezoidal rule of step h for erfc(x) = (2 x exp(-x^2) / pi) int_0^inf exp(-u^2) / (u^2 + x^2) du, with the
// residue of the pole at u = i x taken out where it counts, x < pi / h (F. Matta and A. Reichel, "Uniform
// computation of the error function and other related functions", Mathematics of Computation 25, 1971). Its
// relative error is about exp(-(pi / h)^2): 7e-18 at h = 1/2.

const seriesLimit = 1;
const step = 0.5;

/** (-1)^n 2 / (sqrt(pi) n! (2n + 1)); the first term left out is below 1e-18 at 1. */
const seriesCoefficients: Float64Array = makeSeriesCoefficients(19);

/** exp(-(n h)^2), n = 1, 2, ..., down to 3e-18. */
const nodeWeights: Float64Array = Float64Array.from({ length: 12 }, (_, n) =>
  Math.exp(-(((n + 1) * step) ** 2)),
);

/** `erf(x) = 2 / sqrt(pi) int_0^x exp(-u^2) du`, within 1e-15. */
export function erf(x: number): number {
  if (Math.abs(x) < seriesLimit) return erfSeries(x);
  return x > 0 ? 1 - erfcTail(x) : erfcTail(-x) - 1;
}

/** `erfc(x) = 1 - erf(x)`; for large x its relative error stays near x^2 times the float64 rounding. */
export function erfc(x: number): number {
  if (Math.abs(x) < seriesLimit) return 1 - erfSeries(x);
  return x > 0 ? erfcTail(x) : 2 - erfcTail(-x);
}

function erfSeries(x: number): number {
  const square = x * x;
  let sum = 0;
  for (let n = seriesCoefficients.length - 1; n >= 0; n--) sum = sum * square + seriesCoefficients[n];
  return x * sum;
}

/** erfc for x >= 1. */
function erfcTail(x: number): number {
  if (x > 28) return 0; // exp(-x^2) is below the smallest float64
  const square = x * x;
  let sum = 0.5 / square;
  for (let n = nodeWeights.length; n >= 1; n--) sum += nodeWeights[n - 1] / ((n * step) ** 2 + square);
  const trapezoid = ((2 * step * x) / Math.PI) * Math.exp(-square) * sum;
  return x < Math.PI / step ? trapezoid - 2 / Math.expm1((2 * Math.PI * x) / step) : trapezoid;
}

function makeSeriesCoefficients(count: number): Float64Array {
  const coefficients = new Float64Array(count);
  let factor = 2 / Math.sqrt(Math.PI);
  for (let n = 0; n < count; n++) {
    coefficients[n] = factor / (2 * n + 1);
    factor /= -(n + 1);
  }
  return coefficients;
}
