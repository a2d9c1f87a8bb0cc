import { type OpCalls, opNames } from "@flash-moe/core";
import { runConformance } from "@flash-moe/reference/conformance";
import { expect, it } from "vitest";
import { singlePrecisionOps } from "./single-precision/index.js";
import { backwardsOnGpu, forwards, type Precision } from "./single-precision/precision.js";
import { openWrapped } from "./wrapped-backend.js";

/** Cases that compare numbers. What a device reports late has nothing to do with its arithmetic. */
const compared = /^(linear|batch-norm|router-select|experts|mlp|adamw|layer)/;
const reported = /outside|compact-count/;

// The tolerances must let an honest device pass with room to spare, in whatever order it adds.
it.each<[string, Precision]>([
  ["one term after the other", forwards],
  ["the other way round, with the functions of a GPU at their worst", backwardsOnGpu],
])("an honest device in single precision passes: %s", async (_, precision) => {
  const open = () =>
    openWrapped((_correct, { inner, enqueue }) => {
      const ops = singlePrecisionOps(inner, precision);
      const run = (op: (typeof opNames)[number]) => (call: OpCalls[typeof op]) =>
        enqueue(() => (ops[op] as (call: OpCalls[typeof op]) => Promise<void>)(call));
      return { ops: Object.fromEntries(opNames.map((op) => [op, run(op)])) };
    });
  const { results } = await runConformance(open, {
    filter: (id) => compared.test(id) && !reported.test(id) && !id.includes("many-experts"),
  });
  expect(results.filter(({ status }) => status !== "passed")).toEqual([]);
  expect(results.length).toBeGreaterThan(300);
  // One rounding to 16 bits takes up to all that is allowed for it; sums in f32 must stay well below.
  const sums = results.filter(({ id, worst }) => worst !== undefined && /\/f32\/.*(odd-sizes|silu)/.test(id));
  expect(Math.max(...sums.map(({ worst }) => worst!.budget))).toBeLessThan(0.6);
});
