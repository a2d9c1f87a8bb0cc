import { describe, expect, it } from "vitest";
import { compareOutputs } from "../peers/compare-outputs.mjs";

const tokens = 100;
const expected = {
  output: Float32Array.from({ length: tokens * 2 }, (_, index) => 1 + (index % 7)),
  ids: Int32Array.from({ length: tokens * 2 }, (_, index) => index % 5),
};
const changed = (change: (result: typeof expected) => void) => {
  const result = { output: expected.output.slice(), ids: expected.ids.slice() };
  change(result);
  return compareOutputs(result, expected, tokens);
};

describe("compareOutputs", () => {
  it("takes the same experts in another order", () => {
    const comparison = changed(({ ids }) => ids.subarray(0, 2).reverse());
    expect(comparison).toEqual({ relativeError: 0, otherExperts: 0, equal: true });
  });

  it("passes over a token or two with other experts, and counts them", () => {
    const comparison = changed(({ ids, output }) => {
      ids[0] = 9;
      output[0] = 100;
    });
    expect(comparison).toEqual({ relativeError: 0, otherExperts: 1, equal: true });
  });

  it("refuses many such tokens, another output and NaN", () => {
    expect(changed(({ ids }) => ids.fill(9, 0, 6)).equal).toBe(false);
    expect(changed(({ output }) => output.fill(3, 8, 9)).equal).toBe(false);
    expect(changed(({ output }) => output.fill(Number.NaN, 8, 9)).equal).toBe(false);
  });
});
