import type { LinearCall } from "@flash-moe/core";
import { expect, it } from "vitest";
import type { DeviceMemory } from "../src/device-memory.js";
import { PlanningContext } from "../src/live-context.js";
import { linear } from "../src/ops/linear.js";
import { memory } from "./helpers/plan.js";

type Way = Pick<LinearCall<DeviceMemory>, "transposeA" | "transposeB">;

/** The kernels of a product of these sizes. */
function kernelsOf(rows: number, inner: number, columns: number, way: Way, normalized = false): string[] {
  const context = new PlanningContext("linear", { bindingBytes: 2 ** 30, partBytes: 2 ** 30 });
  const inputNorm = { mean: memory("f32", inner), variance: memory("f32", inner), epsilon: 1e-5 };
  linear(
    {
      ...{ rows, inner, columns, ...way },
      a: memory("f32", rows * inner),
      b: memory("f32", inner * columns),
      output: memory("f32", rows * columns),
      ...(normalized && { inputNorm }),
    },
    context,
  );
  return context.variants.map(({ kernel }) => kernel);
}

it.each<[what: string, size: [number, number, number], way: Way, kernel: string]>([
  ["the projection of few tokens", [8, 300, 200], { transposeB: true }, "linear_rows"],
  ["the projection of many", [9, 300, 200], { transposeB: true }, "linear_tiled"],
  ["the gradient of few tokens", [8, 300, 200], {}, "linear_columns"],
  ["the gradient of many", [9, 300, 200], {}, "linear_tiled"],
  ["the gradient of a weight from few tokens", [300, 8, 200], { transposeA: true }, "linear_outer"],
  ["the gradient of a weight from many", [300, 9, 200], { transposeA: true }, "linear_tiled"],
])("%s is one launch of the kernel for its sizes", (_, size, way, kernel) => {
  expect(kernelsOf(...size, way)).toEqual([kernel]);
});

it("a normalised product goes to a kernel that normalises", () => {
  expect(kernelsOf(8, 300, 200, { transposeB: true }, true)).toEqual(["linear_rows"]);
  expect(kernelsOf(8, 300, 200, {}, true)).toEqual(["linear_tiled"]);
});
