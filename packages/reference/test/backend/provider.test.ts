import { type Backend, FlashMoeError, floatDTypes, forceLoss, opNames } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { describe, expect, test } from "vitest";

async function withBackend(work: (backend: Backend) => Promise<void>): Promise<void> {
  const backend = await reference.open({ memoryLimitBytes: 2 ** 20 });
  try {
    await work(backend);
  } finally {
    await backend.dispose();
  }
}

test("it is available everywhere and says what it is", async () => {
  expect(reference.name).toBe("reference");
  expect(await reference.probe()).toEqual({ available: true, device: "CPU, plain TypeScript (float64)" });
  await withBackend(async (backend) => {
    expect(backend.name).toBe("reference");
    expect(backend.device).toBe("CPU, plain TypeScript (float64)");
    const { capabilities } = backend;
    expect([...capabilities.ops]).toEqual([...opNames]);
    for (const dtype of floatDTypes) expect(capabilities.dtypes[dtype].has("storage")).toBe(true);
    expect(capabilities.deterministic).toBe(true);
    expect(capabilities.forcedLoss).toBe(true);
    expect(capabilities.mlpIntermediate).toBe("f32");
    expect(capabilities.maxKeysPerAxis).toBeGreaterThanOrEqual(4096);
  });
});

test.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
  "a memory limit of %s is refused",
  async (limit) => {
    const error = await reference.open({ memoryLimitBytes: limit }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(FlashMoeError);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(String(error)).toContain(`memoryLimitBytes is ${limit}; takes a whole number from 0`);
  },
);

test("more than one buffer can hold is refused before anything is allocated", async () => {
  const backend = await reference.open();
  const { maxBufferBytes } = backend.capabilities;
  expect(() => backend.alloc("f32", maxBufferBytes / 4 + 1)).toThrow(`takes up to ${maxBufferBytes} bytes`);
  expect(backend.memory().liveBytes).toBe(0);
  await backend.dispose();
});

describe("buffers", () => {
  test("hold every dtype bit for bit, and reads and writes copy", async () => {
    await withBackend(async (backend) => {
      for (const [dtype, data] of [
        ["f32", Float32Array.of(1.5, -0, Number.NaN)],
        ["i32", Int32Array.of(2 ** 31 - 1, -(2 ** 31), 0)],
        ["f16", Uint16Array.of(0xffff, 0x8000, 1)],
        ["bf16", Uint16Array.of(0xffff, 0x8000, 1)],
      ] as const) {
        const expected = data.slice();
        const buffer = backend.alloc(dtype, 5);
        backend.write(buffer, data, 1);
        data.fill(0);
        const read = await backend.read(buffer, 1, 3);
        expect(read).toEqual(expected);
        read.fill(0);
        expect(await backend.read(buffer, 1, 3)).toEqual(expected);
        const copy = backend.alloc(dtype, 5);
        backend.copy(buffer, copy);
        buffer.dispose();
        expect(await backend.read(copy, 1, 3)).toEqual(expected);
        expect([...(await backend.read(copy, 4))]).toEqual([0]);
      }
    });
  });

  test("are read as they were when the read was asked for", async () => {
    await withBackend(async (backend) => {
      const tensor = backend.upload([1, 2], [2]);
      const read = tensor.read();
      backend.write(tensor.buffer, Float32Array.of(3, 4));
      expect([...(await read)]).toEqual([1, 2]);
    });
  });
});

describe("no tokens", () => {
  test("empty outputs, zero gradients of weights", async () => {
    await withBackend(async (backend) => {
      const { ops } = backend;
      const none = (dtype: "f32" | "i32" = "f32") => backend.alloc(dtype, 0);
      const filled = (length: number) => backend.upload(new Float32Array(length).fill(-77), [length]);
      const statistics = { mean: filled(3).buffer, variance: filled(3).buffer, epsilon: 1e-5 };
      const norm = { tokens: 0, features: 3, training: false, input: none(), ...statistics } as const;
      ops.batchNormForward({ ...norm, output: none() });
      ops.batchNormBackward({ ...norm, gradOutput: none(), gradInput: none() });
      const router = { tokens: 0, keysX: 2, keysY: 2, topK: 2, normalizeWeights: true, logits: none() };
      ops.routerSelectForward({ ...router, ids: none("i32"), weights: none() });
      ops.routerSelectBackward({ ...router, ids: none("i32"), gradWeights: none(), gradLogits: none() });

      const shape = { tokens: 0, hiddenSize: 3, activation: "silu", hiddenStates: none() } as const;
      const experts = {
        ...shape,
        numExperts: 4,
        topK: 2,
        down: filled(12).buffer,
        up: filled(12).buffer,
        ids: none("i32"),
        weights: none(),
      };
      const count = backend.upload(Int32Array.of(9), [1]);
      const dense = filled(12);
      const kept = filled(12);
      const back = { ...experts, gradOutput: none(), gradHiddenStates: none(), gradWeights: none() };
      ops.expertsForward({ ...experts, addend: none(), output: none() });
      ops.expertsBackward({
        ...back,
        gradTables: { layout: "compact", ids: none("i32"), count: count.buffer, down: none() },
      });
      ops.expertsBackward({ ...back, gradTables: { layout: "dense", down: dense.buffer } });
      ops.expertsBackward({
        ...back,
        gradTables: { layout: "dense", up: kept.buffer },
        accumulate: ["gradTables"],
      });
      expect([...(await count.read())]).toEqual([0]);
      expect(await dense.read()).toEqual(new Float32Array(12));
      expect(await kept.read()).toEqual(new Float32Array(12).fill(-77));

      const mlp = {
        ...shape,
        intermediateSize: 2,
        gate: filled(6).buffer,
        up: filled(6).buffer,
        down: filled(6).buffer,
      };
      const [gradGate, gradUp, gradDown] = [filled(6), filled(6), filled(6)];
      ops.mlpForward({ ...mlp, output: none() });
      ops.mlpBackward({
        ...mlp,
        gradOutput: none(),
        gradHiddenStates: none(),
        gradGate: gradGate.buffer,
        gradUp: gradUp.buffer,
        gradDown: gradDown.buffer,
        accumulate: ["gradUp"],
      });
      expect(await gradGate.read()).toEqual(new Float32Array(6));
      expect(await gradUp.read()).toEqual(new Float32Array(6).fill(-77));
      expect(await gradDown.read()).toEqual(new Float32Array(6));
    });
  });
});

test("a forced loss settles lost, and everything after it is DEVICE_LOST", async () => {
  const backend = await reference.open();
  const tensor = backend.upload([1], [1]);
  forceLoss(backend);
  expect(await backend.lost).toMatchObject({ reason: "destroyed" });
  await expect(tensor.read()).rejects.toMatchObject({ code: "DEVICE_LOST" });
  expect(() => backend.zeros([1])).toThrow(expect.objectContaining({ code: "DEVICE_LOST" }));
  tensor.dispose();
  await backend.dispose();
});
