import { describe, expect, it } from "vitest";
import { TextPositions } from "../../src/training/text-positions.js";

describe("TextPositions", () => {
  it.each([1, 2, 3, 8, 60, 610, 997, 1000])(
    "gives each of %i positions once before any comes again",
    (length) => {
      const positions = new TextPositions(length, 5);
      const first = positions.take(length);
      expect([...first].sort((a, b) => a - b)).toEqual(Array.from({ length }, (_, i) => i));
      expect(positions.take(length)).toEqual(first);
    },
  );

  it("goes on where the last batch ended", () => {
    const batches = new TextPositions(1000, 5);
    const whole = new TextPositions(1000, 5);
    expect([...batches.take(7), ...batches.take(5)]).toEqual([...whole.take(12)]);
  });

  it("spreads every batch over the whole text", () => {
    const positions = new TextPositions(1_000_000, 5);
    for (let batch = 0; batch < 20; batch++) {
      const sorted = positions.take(50).sort();
      const gaps = [...sorted].map(
        (position, i) => position - (i === 0 ? sorted[49] - 1_000_000 : sorted[i - 1]),
      );
      expect(Math.max(...gaps)).toBeLessThan(60_000);
      expect(Math.min(...gaps)).toBeGreaterThan(5_000);
    }
  });

  it("begins elsewhere with another seed", () => {
    const starts = [1, 2, 3, 4].map((seed) => new TextPositions(1_000_000, seed).take(1)[0]);
    expect(new Set(starts).size).toBe(4);
  });

  it("takes no empty text", () => {
    expect(() => new TextPositions(0, 1)).toThrow("takes at least 1");
  });
});
