import { describe, expect, it } from "vitest";
import { compareElements, compareNorm, sumError, toleranceFor } from "../../src/conformance/tolerance.js";

describe("compareElements", () => {
  it("finds the element that uses most of its own tolerance, not the largest difference", () => {
    const worst = compareElements([1, 2.5, 30], [1, 2, 31], { absolute: [1, 1, 4], relative: 0 });
    expect(worst).toEqual({ index: 1, actual: 2.5, expected: 2, allowed: 1, budget: 0.5 });
  });

  it("widens with the expected value by the relative part", () => {
    expect(compareElements([101], [100], { absolute: 0, relative: 0.02 }).budget).toBeCloseTo(0.5);
    expect(compareElements([-98], [-100], { absolute: 1, relative: 0.01 }).budget).toBeCloseTo(1);
  });

  it.each([
    [Number.NaN, 1],
    [1, Number.NaN],
    [Number.POSITIVE_INFINITY, 1],
    [1, Number.POSITIVE_INFINITY],
    [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    [Number.NaN, Number.POSITIVE_INFINITY],
  ])("%d where %d is expected is beyond any tolerance", (actual, expected) => {
    expect(compareElements([actual], [expected], { absolute: 1e30, relative: 1 }).budget).toBe(
      Number.POSITIVE_INFINITY,
    );
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("%d matches itself", (value) => {
    expect(compareElements([value], [value], { absolute: 0, relative: 0 }).budget).toBe(0);
  });

  it("takes an element that is missing for wrong", () => {
    expect(compareElements([1], [1, 0], { absolute: 1, relative: 0 }).budget).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("compareNorm", () => {
  it("measures by the largest expected element", () => {
    const worst = compareNorm([1, 99], [2, 100], 0.02);
    expect(worst.allowed).toBe(2);
    expect(worst.budget).toBe(0.5);
  });
});

describe("tolerances", () => {
  it("of a sum grow with its length, and slower when it is long", () => {
    expect(sumError(1)).toBe(2 ** -24);
    expect(sumError(16)).toBe(16 * 2 ** -24);
    expect(sumError(1024)).toBe(128 * 2 ** -24);
  });

  it("of a 16-bit output hold one rounding of it, and of an f32 output none", () => {
    const errors = Float64Array.of(1e-6);
    expect(toleranceFor("f32", errors).relative).toBe(0);
    expect(toleranceFor("f16", errors).relative).toBe(2 ** -11);
    expect(toleranceFor("bf16", errors).relative).toBe(2 ** -8);
  });
});
