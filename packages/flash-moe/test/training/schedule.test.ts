import { expect, it } from "vitest";
import { learningRateAt } from "../../src/training/schedule.js";

const schedule = { peak: 2, warmupShare: 0.1, finalShare: 0.25 };

it("rises in a line, falls in half a cosine, and ends at its share of the peak", () => {
  const rates = Array.from({ length: 100 }, (_, i) => learningRateAt(i + 1, 100, schedule));
  expect(rates[0]).toBeCloseTo(0.2, 12);
  expect(rates[4]).toBeCloseTo(1, 12);
  expect(rates[9]).toBe(2);
  // Half way down: in the middle between 2 and 0.5.
  expect(rates[54]).toBeCloseTo(1.25, 12);
  expect(rates[99]).toBeCloseTo(0.5, 12);
  for (let i = 10; i < 100; i++) expect(rates[i]).toBeLessThan(rates[i - 1]);
});

it("has a rate for a single step, with and without a warm-up", () => {
  expect(learningRateAt(1, 1, schedule)).toBe(2);
  expect(learningRateAt(1, 1, { ...schedule, warmupShare: 0 })).toBe(0.5);
});
