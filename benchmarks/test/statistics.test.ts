import { expect, it } from "vitest";
import { fitExponent, median } from "../statistics.mjs";

it("the median is the middle, or the mean of the two in the middle", () => {
  expect(median([9, 1, 2])).toBe(2);
  expect(median([9, 1, 2, 4])).toBe(3);
});

it("the exponent of a power law is found, whatever its factor", () => {
  const x = [4096, 65_536, 1_048_576];
  for (const exponent of [0, 0.5, 1, -0.3]) {
    const y = x.map((value) => 0.07 * value ** exponent);
    expect(fitExponent(x, y)).toBeCloseTo(exponent, 12);
  }
});

it("noise is averaged in the logarithms", () => {
  expect(fitExponent([1, 10, 100], [2, 20 * 1.1, 200])).toBeCloseTo(1, 12);
  expect(fitExponent([1, 10, 100], [1, 10, 1000])).toBeCloseTo(1.5, 12);
});
