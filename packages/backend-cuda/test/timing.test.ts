import { expectedTimes, tune } from "@flash-moe/backend-cuda";
import { timeKernels } from "@flash-moe/core";
import { describe, expect } from "vitest";
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

describe("a backend that is tuned", () => {
  const size = { tokens: 40, hiddenSize: 256, numExperts: 64, topK: 8, activation: "silu" } as const;

  async function experts() {
    const backend = await openShim();
    const numbers = (length: number) => Float32Array.from({ length }, (_, n) => Math.sin(n));
    const table = (seed: number) =>
      backend.upload(
        numbers(64 * 256).map((value) => value * seed),
        [64, 256],
        "bf16",
      );
    const [states, down, up] = [backend.upload(numbers(40 * 256), [40, 256], "bf16"), table(0.1), table(0.2)];
    const ids = backend.upload(
      Int32Array.from({ length: 40 * 8 }, (_, n) => (n * 7) % 64),
      [40, 8],
    );
    const weights = backend.upload(numbers(40 * 8), [40, 8]);
    const output = backend.zeros([40, 256], "bf16");
    const inputs = {
      ...size,
      hiddenStates: states.buffer,
      down: down.buffer,
      up: up.buffer,
      ids: ids.buffer,
      weights: weights.buffer,
    };
    const forward = () => backend.ops.expertsForward({ ...inputs, output: output.buffer });
    const outputs = {
      gradHiddenStates: backend.zeros([40, 256], "f32"),
      gradWeights: backend.zeros([40, 8], "f32"),
      down: backend.zeros([64, 256], "f32"),
      up: backend.zeros([64, 256], "f32"),
    };
    const backward = () =>
      backend.ops.expertsBackward({
        ...inputs,
        gradOutput: states.buffer,
        gradHiddenStates: outputs.gradHiddenStates.buffer,
        gradWeights: outputs.gradWeights.buffer,
        gradTables: { layout: "dense", down: outputs.down.buffer, up: outputs.up.buffer },
      });
    return { backend, forward, output, backward, outputs };
  }

  it("goes the way that is asked for, with the same result, until it is no longer asked", async () => {
    const { backend, forward, output } = await experts();
    const kernelsOf = async () => (await timeKernels(backend, forward)).map(({ kernel }) => kernel);
    const usual = await kernelsOf();
    const expected = await output.read();
    for (const [way, kernel] of [
      ["fused", "expert_forward"],
      ["sliced", "expert_rows_sum"],
      ["dense", "expert_dense_gates"],
    ]) {
      tune(backend, `experts=${way}`);
      expect(await kernelsOf()).toContain(kernel);
      const found = await output.read();
      // Sums of another order, rounded to bf16.
      const largest = Math.max(...expected.map(Math.abs));
      for (const [n, value] of found.entries())
        expect(Math.abs(value - expected[n])).toBeLessThan(2 ** -7 * largest);
    }
    tune(backend, "experts=sliced dots_slices=1 sum_lanes=16");
    expect(await kernelsOf()).toEqual(["expert_dots", "expert_rows_sum"]);
    // Not a replay of a graph of before.
    for (let run = 0; run < 3; run++) forward();
    tune(backend, "");
    expect(await kernelsOf()).toEqual(usual);
    tune(backend, "experts=sliced dots_slices=4 dots_lanes=8");
    expect(await kernelsOf()).toEqual([...new Array(4).fill("expert_dots"), "expert_rows_sum"]);
    await backend.dispose();
  });

  it("goes backward the way that is asked for, with the same gradients to f32's accuracy", async () => {
    const { backend, backward, outputs } = await experts();
    const kernelsOf = async () => (await timeKernels(backend, backward)).map(({ kernel }) => kernel);
    const read = () => Promise.all(Object.values(outputs).map((output) => output.read()));
    tune(backend, "experts_backward=gathered");
    expect(await kernelsOf()).toContain("expert_table_grad");
    const expected = await read();
    for (const tile of [64, 128]) {
      tune(backend, `experts_backward=dense dense_tile=${tile}`);
      const kernels = await kernelsOf();
      expect(kernels).toEqual(expect.arrayContaining(["expert_dense_dots", "expert_dense_table_grad"]));
      expect(kernels).not.toContain("expert_table_grad");
      for (const [n, found] of (await read()).entries()) {
        const largest = Math.max(...expected[n].map(Math.abs));
        expect(largest).toBeGreaterThan(0);
        for (const [i, value] of found.entries())
          expect(Math.abs(value - expected[n][i])).toBeLessThan(2 ** -18 * largest);
      }
    }
    const expectations = await expectedTimes(backend, backward);
    expect(expectations.map(({ way }) => way)).toEqual(["gathered", "dense"]);
    await backend.dispose();
  });

  it("tells what each way is expected to take, by the rates that it is given", async () => {
    const { backend, forward } = await experts();
    const expected = async () =>
      new Map((await expectedTimes(backend, forward)).map(({ way, nanoseconds }) => [way, nanoseconds]));
    const usual = await expected();
    expect([...usual.keys()].slice(0, 3)).toEqual(["fused", "sliced", "dense"]);
    for (const nanoseconds of usual.values()) expect(nanoseconds).toBeGreaterThan(0);
    tune(backend, "launch=1");
    for (const nanoseconds of (await expected()).values()) expect(nanoseconds).toBeGreaterThan(1e9);
    await backend.dispose();
  });

  it("refuses what is no way, and an op what it cannot be", async () => {
    const { backend } = await experts();
    for (const text of [
      "experts=quick",
      "experts_backward=fused",
      "expert=fused",
      "dense_chunk=-1",
      "pieces=",
      "pieces=0.5",
      "splits=1.5",
      "tiles",
    ]) {
      expect(() => tune(backend, text)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    }
    tune(backend, "experts=fused");
    const floats = (length: number) => backend.alloc("f32", length);
    // Rows of 12 bytes.
    expect(() =>
      backend.ops.expertsForward({
        tokens: 1,
        hiddenSize: 3,
        numExperts: 2,
        topK: 1,
        activation: "silu",
        hiddenStates: floats(3),
        down: floats(6),
        up: floats(6),
        ids: backend.alloc("i32", 1),
        weights: floats(1),
        output: floats(3),
      }),
    ).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
    tune(backend, "experts_backward=dense");
    expect(() =>
      backend.ops.expertsBackward({
        tokens: 1,
        hiddenSize: 4,
        numExperts: 2,
        topK: 1,
        activation: "silu",
        hiddenStates: floats(4),
        down: floats(8),
        up: floats(8),
        ids: backend.alloc("i32", 1),
        weights: floats(1),
        gradOutput: floats(4),
        gradHiddenStates: floats(4),
      }),
    ).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
    await backend.dispose();
  });
});
