import { type OpCalls, type OpName, opNames } from "@flash-moe/core";
import { runConformance } from "@flash-moe/reference/conformance";
import { describe, expect, it } from "vitest";
import { singlePrecisionOps } from "./single-precision/index.js";
import {
  backwardsOnGpu,
  bf16Intermediate,
  bf16Sums,
  forwards,
  type Precision,
} from "./single-precision/precision.js";
import { type Change, openWrapped } from "./wrapped-backend.js";

/** Cases that compare numbers. What a device reports late has nothing to do with its arithmetic. */
const compared = /^(linear|batch-norm|router-select|experts|mlp|adamw|layer)/;
const reported = /outside|count-(over|below)/;

function computedIn(precision: Precision): Change {
  return (_correct, { inner, enqueue }) => {
    const ops = singlePrecisionOps(inner, precision);
    const run = (op: OpName) => (call: OpCalls[OpName]) =>
      enqueue(() => (ops[op] as (call: OpCalls[OpName]) => Promise<void>)(call));
    return { ops: Object.fromEntries(opNames.map((op) => [op, run(op)])) };
  };
}

// The tolerances must let an honest device pass with room to spare, in whatever order it adds.
it.each<[string, Precision]>([
  ["one term after the other", forwards],
  ["the other way round, with the functions of a GPU at their worst", backwardsOnGpu],
])("an honest device in single precision passes: %s", async (_, precision) => {
  const { results } = await runConformance(() => openWrapped(computedIn(precision)), {
    filter: (id) => compared.test(id) && !reported.test(id) && !id.includes("many-experts"),
  });
  expect(results.filter(({ status }) => status !== "passed")).toEqual([]);
  expect(results.length).toBeGreaterThan(300);
  // One rounding to 16 bits takes up to all that is allowed for it; sums in f32 must stay well below.
  const sums = results.filter(({ id, worst }) => worst !== undefined && /\/f32\/.*(odd-sizes|silu)/.test(id));
  expect(Math.max(...sums.map(({ worst }) => worst!.budget))).toBeLessThan(0.6);
});

describe("an MLP that keeps its intermediate in bf16", () => {
  const filter = (id: string) => /^(mlp-.*|layer)\/bf16\//.test(id);
  const open = (mlpIntermediate: "f32" | "storage") =>
    runConformance(() => openWrapped(computedIn(bf16Intermediate), { mlpIntermediate }), { filter });

  it("passes where it says so", async () => {
    const { results } = await open("storage");
    expect(results.filter(({ status }) => status !== "passed")).toEqual([]);
  });

  it("fails where it does not", async () => {
    const { results } = await open("f32");
    const failed = results.filter(({ status }) => status === "failed").map(({ id }) => id);
    expect(failed).toEqual(
      expect.arrayContaining([
        "mlp-forward/bf16/output-f32",
        "mlp-backward/bf16/gelu",
        "layer/bf16/training",
      ]),
    );
  });

  it("is no excuse for anything else", async () => {
    const { results } = await runConformance(
      () => openWrapped(computedIn(bf16Sums), { mlpIntermediate: "storage" }),
      { filter: (id) => /^(linear|experts-.*)\/bf16\/(odd-sizes|to-f32)/.test(id) },
    );
    expect(results.map(({ status }) => status)).not.toContain("passed");
  });
});
