import type { FloatDType } from "@flash-moe/core";

/**
 * How far a result may be from the oracle's, element by element:
 *
 *     |actual - expected| <= absolute[n] + relative * |expected|
 *
 * `absolute` bounds the error of f32 arithmetic on these very inputs (see bounds/), so it is wide where
 * terms cancel and narrow elsewhere; `relative` is the one rounding to a 16-bit output. Both follow from
 * the dtype and the lengths of the sums, never from the backend. Roundings to bf16 or TF32 along the way,
 * and terms left out, are larger than that.
 */
export interface Tolerance {
  readonly absolute: number | ArrayLike<number>;
  readonly relative: number;
}

/** The worst element of a comparison. */
export interface Comparison {
  readonly index: number;
  readonly actual: number;
  readonly expected: number;
  /** The difference that would still pass. */
  readonly allowed: number;
  /** The difference as a share of `allowed`: above 1 is a failure; infinite where one of the two is not finite. */
  readonly budget: number;
}

/** The largest relative error of one rounding to nearest. */
export const unitRoundoff: Readonly<Record<FloatDType, number>> = {
  f32: 2 ** -24,
  f16: 2 ** -11,
  bf16: 2 ** -8,
};

/** A device may take f32 values below the smallest normal number for zero. */
const smallestNormal = 2 ** -126;
const halfSmallestF16 = 2 ** -25;

/** The most that rounding to `dtype` is off by where a number is too small for its share, {@link unitRoundoff}. */
export function roundingFloor(dtype: FloatDType): number {
  return dtype === "f16" ? halfSmallestF16 : smallestNormal;
}

/**
 * Relative to the sum of the terms' absolute values, the error of products summed in f32 in any order:
 * at most `length` unit roundoffs u. Beyond 16 terms, roundings of both signs compensate: 4 u sqrt(length)
 * is several times what orders in use (sequential, blocked, tree) come to.
 */
export function sumError(length: number): number {
  return unitRoundoff.f32 * Math.min(length, 4 * Math.sqrt(length));
}

/** For a result with these f32 errors, stored as `dtype`. */
export function toleranceFor(dtype: FloatDType, errors: Float64Array): Tolerance {
  if (dtype === "f32") return { absolute: errors.map((error) => error + smallestNormal), relative: 0 };
  const relative = unitRoundoff[dtype];
  return { absolute: errors.map((error) => error * (1 + relative) + roundingFloor(dtype)), relative };
}

/** The worst element, by share of its tolerance. NaN matches NaN, an infinity matches itself. */
export function compareElements(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
): Comparison {
  const { absolute, relative } = tolerance;
  return worstElement(
    actual,
    expected,
    (index) =>
      (typeof absolute === "number" ? absolute : absolute[index]) + relative * Math.abs(expected[index]),
  );
}

/** The worst element of max |actual - expected| / max |expected| <= relative, for whole layers. */
export function compareNorm(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative: number,
): Comparison {
  let largest = smallestNormal;
  for (let n = 0; n < expected.length; n++) largest = Math.max(largest, Math.abs(expected[n]));
  return worstElement(actual, expected, () => relative * largest);
}

function worstElement(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  allowedAt: (index: number) => number,
): Comparison {
  let worst: Comparison = { index: -1, actual: 0, expected: 0, allowed: 0, budget: 0 };
  for (let index = 0; index < expected.length; index++) {
    const difference = Math.abs(actual[index] - expected[index]);
    // Covers equal infinities, whose difference is NaN, and NaN itself.
    if (difference === 0 || Object.is(actual[index], expected[index])) continue;
    const allowed = allowedAt(index);
    const share = difference / allowed;
    const budget = Number.isNaN(share) ? Number.POSITIVE_INFINITY : share;
    if (budget > worst.budget) {
      worst = { index, actual: actual[index], expected: expected[index], allowed, budget };
    }
  }
  return worst;
}
