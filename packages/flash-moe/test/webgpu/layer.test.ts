import type { Backend, Progress, Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, vi } from "vitest";
import type { FlashMoeOptions } from "../../src/layer/config.js";
import { estimateMemory } from "../../src/layer/estimate-memory.js";
import { FlashMoE } from "../../src/layer/flash-moe.js";
import { AdamW } from "../../src/training/index.js";
import { expectNothingAddedWithoutRoom } from "../helpers/adding-backward.js";
import { dawnClasses, itOnAdapter as it, openWebGpu } from "./open.js";

const options: FlashMoeOptions = { hiddenSize: 16, intermediateSize: 24, keysX: 5, keysY: 7, topK: 4 };

let opened: Backend[] = [];
const open: typeof openWebGpu = async (settings) => {
  const backend = await openWebGpu(settings);
  opened.push(backend);
  return backend;
};
beforeEach(() => {
  opened = [];
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const backend of opened) await backend.dispose();
});

function states(backend: Backend, tokens: number, hiddenSize = options.hiddenSize): Tensor {
  const values = Float32Array.from({ length: tokens * hiddenSize }, (_, n) => Math.sin(1.7 * n));
  return backend.upload(values, [tokens, hiddenSize]);
}

/** Largest difference over largest value. */
function distance(values: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let largest = 0;
  for (let n = 0; n < expected.length; n++) {
    difference = Math.max(difference, Math.abs(values[n] - expected[n]));
    largest = Math.max(largest, Math.abs(expected[n]));
  }
  return difference / largest;
}

it("one token through a layer is at most six dispatches", async () => {
  const backend = await open();
  const { GPUComputePassEncoder } = await dawnClasses();
  for (const norm of ["hidden", "logits", "none"] as const) {
    using layer = await FlashMoE.create(backend, { ...options, norm });
    const x = states(backend, 1);
    const dispatches = vi.spyOn(GPUComputePassEncoder.prototype, "dispatchWorkgroups");
    layer.forward(x).dispose();
    expect(dispatches.mock.calls.length, norm).toBeLessThanOrEqual(6);
    dispatches.mockRestore();
  }
});

describe("warmup", () => {
  it.each([
    ["forward", 1],
    ["train", 20],
  ] as const)("compiles all that %s of %i tokens needs", async (mode, tokens) => {
    const backend = await open();
    using layer = await FlashMoE.create(backend, options, { dtype: "bf16" });
    const progress: Progress[] = [];
    const live = backend.memory().liveBytes;
    await layer.warmup(tokens, { mode, onProgress: (step) => progress.push(step) });
    expect(backend.memory().liveBytes).toBe(live);
    expect(progress.map(({ loaded }) => loaded)).toEqual(progress.map((_, n) => n + 1));
    expect(progress.at(-1)?.total).toBe(progress.length);
    expect(layer.router.batchesTracked).toBe(0);

    const { GPUDevice } = await dawnClasses();
    const compile = vi.spyOn(GPUDevice.prototype, "createComputePipeline");
    const bits = new Uint16Array(tokens * options.hiddenSize).fill(0x3f80);
    const x = backend.upload(bits, [tokens, options.hiddenSize], "bf16");
    layer.forward(x).dispose();
    if (mode === "train") {
      const optimizer = await AdamW.create(layer.parameters());
      const gradients = layer.record(x).backward(x);
      optimizer.step(layer.parameters(), gradients.parameters, { learningRate: 1 });
      expect(layer.router.batchesTracked).toBe(1);
    }
    await backend.sync();
    expect(compile).not.toHaveBeenCalled();
  });

  it("leaves the statistics alone, and gives the same bits as without", async () => {
    const backend = await open();
    using layer = await FlashMoE.create(backend, options);
    const x = states(backend, 9);
    const before = await layer.forward(x).read();
    await layer.warmup(9, { mode: "train", tables: "compact" });
    expect(await layer.forward(x).read()).toEqual(before);
  });

  it("ends with the reason of a signal", async () => {
    const backend = await open();
    using layer = await FlashMoE.create(backend, options);
    const stop = new AbortController();
    const live = backend.memory().liveBytes;
    const onProgress = () => stop.abort(new Error("enough"));
    await expect(layer.warmup(9, { signal: stop.signal, onProgress })).rejects.toThrow("enough");
    await expect(layer.warmup(9, { signal: stop.signal })).rejects.toThrow("enough");
    expect(backend.memory().liveBytes).toBe(live);
  });

  it("has nothing to do where nothing is compiled", async () => {
    await using backend = await reference.open();
    using layer = await FlashMoE.create(backend, options);
    const onProgress = vi.fn();
    await layer.warmup(9, { mode: "train", onProgress });
    expect(onProgress).not.toHaveBeenCalled();
  });
});

describe("memory", () => {
  it("is what it was after a thousand layers came and went", async () => {
    const backend = await open();
    const small: FlashMoeOptions = { hiddenSize: 4, intermediateSize: 4, keysX: 2, keysY: 3, topK: 2 };
    const run = async (seed: number): Promise<void> => {
      using layer = await FlashMoE.create(backend, small, { seed });
      using x = states(backend, 2, small.hiddenSize);
      layer.forward(x).dispose();
      if (seed % 50 > 0) return;
      using recording = layer.record(x);
      recording.backward(recording.output).dispose();
    };
    await run(0);
    await backend.sync();
    const { liveBytes, scratchBytes } = backend.memory();
    expect(liveBytes).toBe(0);
    for (let seed = 1; seed <= 1000; seed++) await run(seed);
    await backend.sync();
    expect(backend.memory()).toMatchObject({ liveBytes, scratchBytes });
  }, 300_000);

  it.each<[string, FlashMoeOptions, number]>([
    ["tables", { hiddenSize: 64, intermediateSize: 128, keysX: 128, keysY: 128, topK: 64 }, 64],
    ["activations", { hiddenSize: 64, intermediateSize: 128, keysX: 12, keysY: 12, topK: 8 }, 2000],
  ])(
    "where most is %s is at its peak at most 1.2 times tables and activations",
    async (_, large, tokens) => {
      const backend = await open();
      using layer = await FlashMoE.create(backend, large);
      const x = states(backend, tokens, large.hiddenSize);
      /** The peak so far, of parameters (with gradients and moments), of what an estimate calls activations, and of the MLP's. */
      const peak = async (mode: "forward" | "backward" | "train", projections: number): Promise<number> => {
        await backend.sync();
        const estimate = estimateMemory(large, tokens, { mode, tables: "compact" });
        const insideMlp = 4 * tokens * large.intermediateSize * projections;
        return backend.memory().peakBytes / (estimate.totalBytes + insideMlp);
      };
      layer.forward(x).dispose();
      expect(await peak("forward", 1)).toBeLessThan(1.2);
      {
        using recording = layer.record(x);
        recording.backward(x, { tables: "compact" }).dispose();
      }
      expect(await peak("backward", 3)).toBeLessThan(1.2);
      using optimizer = await AdamW.create(layer.parameters());
      using recording = layer.record(x);
      using gradients = recording.backward(x, { tables: "compact" });
      optimizer.step(layer.parameters(), gradients.parameters, { learningRate: 1e-3 });
      expect(await peak("train", 3)).toBeLessThan(1.2);
    },
    300_000,
  );
});

it("two layers on one device do not disturb each other", async () => {
  const backend = await open();
  await using oracle = await reference.open();
  const other: FlashMoeOptions = {
    ...options,
    keysX: 9,
    keysY: 2,
    topK: 7,
    norm: "none",
    activation: "gelu",
  };
  const layers = [
    await FlashMoE.create(backend, options, { seed: 1 }),
    await FlashMoE.create(backend, other),
  ];
  const twins = [await FlashMoE.create(oracle, options, { seed: 1 }), await FlashMoE.create(oracle, other)];
  const x = states(backend, 12);
  // Enqueued in turns, read at the end.
  const outputs = [0, 1, 0, 1].map((n) => layers[n].forward(x));
  const expected = [0, 1, 0, 1].map((n) => twins[n].forward(states(oracle, 12)));
  for (const [n, output] of outputs.entries()) {
    expect(distance(await output.read(), await expected[n].read())).toBeLessThan(1e-5);
  }
  layers[0].dispose();
  expect(distance(await layers[1].forward(x).read(), await expected[1].read())).toBeLessThan(1e-5);
});

it("NaN among the hidden states gives ids that are valid, and NaN where the oracle has it", async () => {
  const backend = await open();
  await using oracle = await reference.open();
  const results = await Promise.all(
    [backend, oracle].map(async (on) => {
      const layer = await FlashMoE.create(on, options);
      const values = await states(on, 5).read();
      values[2 * options.hiddenSize] = Number.NaN;
      const recording = layer.record(on.upload(values, [5, options.hiddenSize]), { training: false });
      const { ids } = recording.routing;
      return { ids: await ids.read(), output: await recording.output.read() };
    }),
  );
  expect(results[0].ids).toEqual(results[1].ids);
  const isNan = (values: ArrayLike<number>) => Array.from(values, (value) => Number.isNaN(value));
  expect(isNan(results[0].output)).toEqual(isNan(results[1].output));
  expect(isNan(results[0].output)).toContain(true);
});

it("adds to no gradient where its budget ends", async () => {
  await expectNothingAddedWithoutRoom(await open({ memoryLimitBytes: 2 ** 20 }), 512);
});
