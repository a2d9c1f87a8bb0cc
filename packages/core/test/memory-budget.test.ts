import { MemoryBudget } from "@flash-moe/core";
import { expect, it } from "vitest";
import { expectThrow } from "./helpers/expect-error.js";

it("counts live and scratch bytes, and the most they came to together", () => {
  const budget = new MemoryBudget(1000);
  budget.reserve(300, "a");
  budget.reserve(100, "b");
  expect(budget.withScratch(500, "scores", () => budget.report())).toEqual({
    liveBytes: 400,
    scratchBytes: 500,
    peakBytes: 900,
    limitBytes: 1000,
  });
  budget.release(300);
  budget.reserve(200, "c");
  expect(budget.report()).toEqual({ liveBytes: 300, scratchBytes: 0, peakBytes: 900, limitBytes: 1000 });
});

it("refuses what does not fit, with what was asked for and what is left, and counts nothing", () => {
  const budget = new MemoryBudget(1000);
  budget.reserve(600, "a");
  budget.reserveScratch(150, "s");
  expectThrow(() => budget.reserve(251, "tables"), "OUT_OF_MEMORY", "tables", "251", "250", "1000");
  expectThrow(() => budget.reserveScratch(1000, "pairs"), "OUT_OF_MEMORY", "pairs", "1000 bytes", "250");
  expect(budget.report()).toMatchObject({ liveBytes: 600, scratchBytes: 150, peakBytes: 750 });
  budget.reserve(250, "exactly the rest");
  expectThrow(() => budget.reserve(1, "one more"), "OUT_OF_MEMORY", "0 bytes are left");
  budget.releaseScratch(150);
  budget.reserve(150, "what the scratch had");
});

it("has scratch that is only kept released before it refuses", () => {
  const budget = new MemoryBudget(1000);
  budget.reserveScratch(600, "kept");
  let kept = 600;
  budget.setReclaim(() => {
    budget.releaseScratch(kept);
    kept = 0;
  });
  budget.reserve(400, "what fits beside it");
  expect(budget.report().scratchBytes).toBe(600);
  budget.reserve(500, "what does not");
  expect(budget.report()).toMatchObject({ liveBytes: 900, scratchBytes: 0, peakBytes: 1000 });
  expectThrow(() => budget.reserve(101, "tables"), "OUT_OF_MEMORY", "101", "100 bytes are left");
});

it("gives scratch back when the work throws, and does not start work whose scratch does not fit", () => {
  const budget = new MemoryBudget(100);
  expect(() =>
    budget.withScratch(80, "scores", () => {
      throw new Error("work failed");
    }),
  ).toThrow("work failed");
  expect(budget.report().scratchBytes).toBe(0);
  let ran = false;
  expectThrow(
    () =>
      budget.withScratch(101, "scores", () => {
        ran = true;
      }),
    "OUT_OF_MEMORY",
    "scores",
  );
  expect(ran).toBe(false);
});

it("has no limit where the device tells none, and counts all the same", () => {
  const budget = new MemoryBudget(null);
  budget.reserve(2 ** 50, "a");
  expect(budget.report()).toMatchObject({ liveBytes: 2 ** 50, limitBytes: null });
});
