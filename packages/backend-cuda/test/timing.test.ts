import { timeKernels } from "@flash-moe/core";
import { expect } from "vitest";
import { itOnShim as it, openShim } from "./helpers/shim.js";

it("names every kernel of an op, in order, and fails on ids out of range as any await does", async () => {
  const backend = await openShim();
  const states = backend.zeros([2, 8]);
  const table = backend.zeros([4, 8]);
  const ids = backend.upload(new Int32Array([0, 3, 1, 2]), [2, 2]);
  const wrong = backend.upload(new Int32Array([0, 3, 1, 4]), [2, 2]);
  const weights = backend.zeros([2, 2]);
  const output = backend.zeros([2, 8]);
  const forward = (chosen: typeof ids) => () =>
    backend.ops.expertsForward({
      tokens: 2,
      hiddenSize: 8,
      numExperts: 4,
      topK: 2,
      activation: "silu",
      hiddenStates: states.buffer,
      down: table.buffer,
      up: table.buffer,
      ids: chosen.buffer,
      weights: weights.buffer,
      output: output.buffer,
    });
  const times = await timeKernels(backend, forward(ids));
  expect(times.length).toBeGreaterThan(0);
  for (const { op, kernel, nanoseconds } of times) {
    expect(op).toBe("expertsForward");
    expect(kernel).toMatch(/^expert_/);
    expect(nanoseconds).toBeGreaterThanOrEqual(0);
  }
  expect(await timeKernels(backend, () => {})).toEqual([]);
  const error = await timeKernels(backend, forward(wrong)).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
  await backend.dispose();
});
