import { describe, expect, it } from "vitest";
import { ExpertUsage } from "../src/index.js";

describe("ExpertUsage", () => {
  it("is even when every expert is used alike", () => {
    const usage = new ExpertUsage(4);
    usage.add(2, Int32Array.of(0, 1, 2, 3));
    expect(usage.report()).toMatchObject({ tokens: 2, used: 4, share: 1, unevenness: 0 });
  });

  it("is log N when one expert does all the work", () => {
    const usage = new ExpertUsage(8);
    usage.add(3, Int32Array.of(5, 5, 5));
    const report = usage.report();
    expect(report.unevenness).toBeCloseTo(Math.log(8), 12);
    expect(report.share).toBe(1 / 8);
    expect([...report.counts]).toEqual([0, 0, 0, 0, 0, 3, 0, 0]);
  });

  it("weighs by routing weights where they are given, over several batches", () => {
    const usage = new ExpertUsage(2);
    usage.add(1, Int32Array.of(0, 1), Float32Array.of(0.75, 0.25));
    usage.add(1, Int32Array.of(0, 1), Float32Array.of(0.25, 0.75));
    expect(usage.report().unevenness).toBeCloseTo(0, 12);
    usage.add(1, Int32Array.of(0, 1), Float32Array.of(1, 0));
    const expected = (2 / 3) * Math.log((2 / 3) * 2) + (1 / 3) * Math.log((1 / 3) * 2);
    expect(usage.report().unevenness).toBeCloseTo(expected, 12);
  });

  it("counts nothing of a batch with an id out of range", () => {
    const usage = new ExpertUsage(2);
    expect(() => usage.add(1, Int32Array.of(0, 2))).toThrow("ids[1] is 2; takes 0 to 1");
    expect(usage.report()).toMatchObject({ tokens: 0, used: 0, unevenness: 0 });
    expect(() => new ExpertUsage(0)).toThrow("numExperts is 0");
  });

  it("refuses lists that do not fit together", () => {
    const usage = new ExpertUsage(2);
    expect(() => usage.add(-1, Int32Array.of(0))).toThrow("tokens is -1");
    expect(() => usage.add(2, Int32Array.of(0, 1, 1))).toThrow("ids has 3 elements for 2 tokens");
    expect(() => usage.add(0, Int32Array.of(0))).toThrow("ids has 1 elements for 0 tokens");
    expect(() => usage.add(1, [0] as never)).toThrow("takes an Int32Array");
    usage.add(0, new Int32Array(0));
    expect(usage.report().tokens).toBe(0);
  });

  it("does not call usage even when a weight is NaN", () => {
    const usage = new ExpertUsage(2);
    usage.add(1, Int32Array.of(0), Float32Array.of(Number.NaN));
    expect(usage.report().unevenness).toBeNaN();
  });
});
