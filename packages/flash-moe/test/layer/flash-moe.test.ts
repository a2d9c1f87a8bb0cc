import { type Backend, FlashMoeError, type Tensor } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { estimateMemory } from "../../src/layer/estimate-memory.js";
import { FlashMoE } from "../../src/layer/flash-moe.js";

const options = { hiddenSize: 12, intermediateSize: 20, keysX: 5, keysY: 7, topK: 6 } as const;
const tokens = 9;

let backend: Backend;
beforeEach(async () => {
  backend = await reference.open();
});
afterEach(() => backend.dispose());

function states(shape: readonly number[] = [tokens, options.hiddenSize], phase = 0): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return backend.upload(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + phase)),
    shape,
  );
}

function code(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (FlashMoeError.is(error)) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing thrown";
}

describe("FlashMoE", () => {
  it("keeps leading dimensions and gives the same numbers for them", async () => {
    const layer = await FlashMoE.create(backend, options);
    const flat = layer.forward(states([6, 12]));
    const nested = layer.forward(states([2, 3, 12]));
    expect(nested.shape).toEqual([2, 3, 12]);
    expect(await nested.read()).toEqual(await flat.read());
  });

  it("makes the same weights from the same seed, others from another", async () => {
    const read = async (seed: number): Promise<unknown> => {
      using layer = await FlashMoE.create(backend, options, { seed });
      return Promise.all(layer.parameters().map(async ({ name, tensor }) => [name, await tensor.read()]));
    };
    expect(await read(3)).toEqual(await read(3));
    expect(await read(3)).not.toEqual(await read(4));
  });

  it("writes to memory that it is given", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const output = backend.zeros(x.shape);
    const live = backend.memory().liveBytes;
    expect(layer.forward(x, { output })).toBe(output);
    expect(backend.memory().liveBytes).toBe(live);
    expect(await output.read()).toEqual(await layer.forward(x).read());
    const forwardTo = (target: Tensor) => code(() => layer.forward(x, { output: target }));
    expect(forwardTo(backend.zeros([1, 12]))).toContain("INVALID_ARGUMENT output has the shape [1,12]");
    expect(forwardTo(backend.zeros(x.shape, "f16"))).toContain("INVALID_ARGUMENT output is f16; takes f32");
    expect(forwardTo(x)).toContain("INVALID_ARGUMENT");
    expect(output.disposed).toBe(false);
  });

  it("adds a residual before the one rounding", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const alone = await layer.forward(x).read();
    const residual = states(undefined, 1);
    const values = await residual.read();
    const together = await layer.forward(x, { addend: residual }).read();
    expect(Math.max(...together.map((value, i) => Math.abs(value - alone[i] - values[i])))).toBeLessThan(
      1e-6,
    );
  });

  it("adds gradients to those of an earlier batch", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const dy = states(undefined, 2);
    const recording = layer.record(x, { training: false });
    const once = recording.backward(dy);
    const twice = recording.backward(dy);
    recording.backward(dy, { addTo: twice });
    for (const [name, gradient] of once.parameters) {
      const single = await gradient.values.read();
      const double = await twice.parameters.get(name)?.values.read();
      expect(
        double?.map((value, i) => Math.abs(value - 2 * single[i])).every((error) => error < 1e-6),
        name,
      ).toBe(true);
    }
    const compact = recording.backward(dy, { tables: "compact" });
    expect(code(() => recording.backward(dy, { addTo: compact }))).toMatch(
      /^INVALID_ARGUMENT addTo has a compact/,
    );
  });

  it("gives memory back, also when something in between fails", async () => {
    const start = backend.memory().liveBytes;
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const held = backend.memory().liveBytes;
    layer.forward(x).dispose();
    expect(backend.memory().liveBytes).toBe(held);
    const recording = layer.record(x);
    const dy = states(undefined, 2);
    recording.backward(dy).dispose();
    const before = backend.memory().liveBytes;
    const wrong = states([tokens, 12], 3);
    wrong.dispose();
    expect(code(() => recording.backward(wrong))).toMatch(/^DISPOSED/);
    expect(code(() => layer.forward(dy, { addend: wrong }))).toMatch(/^DISPOSED/);
    expect(backend.memory().liveBytes).toBe(before);
    recording.dispose();
    dy.dispose();
    x.dispose();
    layer.dispose();
    layer.dispose();
    expect(backend.memory().liveBytes).toBe(start);
  });

  it("needs two tokens in training and changes nothing when it refuses", async () => {
    for (const norm of ["hidden", "logits"] as const) {
      const layer = await FlashMoE.create(backend, { ...options, norm });
      const x = states([1, 12]);
      const before = await layer.router.statistics?.mean.read();
      expect(code(() => layer.record(x))).toMatch(
        /^INVALID_ARGUMENT batchNormForward: tokens is 1; .*at least 2/,
      );
      expect(await layer.router.statistics?.mean.read()).toEqual(before);
      expect(layer.router.batchesTracked).toBe(0);
      expect(layer.forward(x).shape).toEqual([1, 12]);
    }
    const layer = await FlashMoE.create(backend, { ...options, norm: "none" });
    expect(layer.record(states([1, 12])).output.shape).toEqual([1, 12]);
  });

  it("changes no statistics when what comes after the router fails", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const read = () =>
      Promise.all([layer.router.statistics?.mean.read(), layer.router.statistics?.variance.read()]);
    const before = await read();
    const live = backend.memory().liveBytes;
    for (const addend of [x.buffer, states([1, 12]), backend.zeros(x.shape, "i32")]) {
      expect(code(() => layer.record(x, { addend: addend as never }))).toMatch(/^INVALID_ARGUMENT/);
    }
    expect(backend.memory().liveBytes - live).toBe(4 * (12 + tokens * 12));

    const bytes = layer.slots().reduce((sum, slot) => sum + slot.tensor.buffer.byteLength, 0);
    for (let room = 256; room < 16_384; room += 256) {
      const cramped = await reference.open({ memoryLimitBytes: bytes + room });
      await layer.moveTo(cramped);
      const outcome = code(() =>
        layer.record(cramped.upload(new Float32Array(24).map(Math.cos), [2, 12])).dispose(),
      );
      expect(outcome).toMatch(/^(OUT_OF_MEMORY|nothing thrown)/);
      if (outcome !== "nothing thrown") {
        expect(await read()).toEqual(before);
        expect(layer.router.batchesTracked).toBe(0);
      }
      await layer.moveTo(backend);
      await cramped.dispose();
      if (outcome === "nothing thrown") return;
    }
    expect.unreachable("a batch of two tokens needs less");
  });

  it("adds to no gradient when a part of a backward does not fit", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const dy = states(undefined, 2);
    const recording = layer.record(x);
    const addTo = recording.backward(dy);
    const read = () => Promise.all(addTo.tensors().map((tensor) => tensor.read()));
    const before = await read();
    const weight = { layout: "dense", values: dy } as never;
    const parameters = new Map(addTo.parameters).set("router_gate.weight", weight);
    for (const wrong of [
      { gradRouterLogits: backend.zeros([tokens, 11]) },
      { gradRoutingWeights: dy },
      { gradRouterLogits: {} as never },
      { tables: "sparse" as never },
      { tables: "compact" as const },
      { addTo: { hiddenStates: addTo.hiddenStates, parameters } },
    ]) {
      expect(code(() => recording.backward(dy, { addTo, ...wrong }))).toMatch(/^INVALID_ARGUMENT/);
    }
    expect(code(() => recording.backward(new Float32Array(tokens * 12) as never, { addTo }))).toBe(
      "INVALID_ARGUMENT gradOutput is Float32Array; takes a tensor",
    );
    expect(await read()).toEqual(before);
  });

  it("frees with a backward's gradients what it made, and not what it was given", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    const dy = states(undefined, 2);
    const recording = layer.record(x);
    const sum = recording.backward(dy);
    const before = await sum.hiddenStates.read();
    const live = backend.memory().liveBytes;
    for (const addTo of [sum, { hiddenStates: sum.hiddenStates }, { parameters: sum.parameters }]) {
      const gradients = recording.backward(dy, { addTo });
      gradients.dispose();
      expect(sum.tensors().some((tensor) => tensor.disposed)).toBe(false);
      expect(backend.memory().liveBytes).toBe(live);
    }
    expect(await sum.hiddenStates.read()).not.toEqual(before);

    const addToWeights = backend.zeros([tokens, options.topK]);
    layer.ffn.backward(x, recording.routing, dy, { addToWeights }).dispose();
    layer.ffn.experts.backward(x, recording.routing, dy, { addToWeights }).dispose();
    expect(addToWeights.disposed).toBe(false);
    expect(backend.memory().liveBytes).toBe(live + addToWeights.buffer.byteLength);
    sum.dispose();
    expect(sum.tensors().every((tensor) => tensor.disposed)).toBe(true);
  });

  it("handles zero tokens in evaluation", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states([0, 12]);
    expect((await layer.forward(x).read()).length).toBe(0);
    const recording = layer.record(x, { training: false });
    const gradients = recording.backward(states([0, 12]));
    for (const [, gradient] of gradients.parameters) {
      expect((await gradient.values.read()).every((value) => value === 0)).toBe(true);
    }
  });

  it.each([
    [{ topK: 0 }, /topK is 0; takes an integer from 1/],
    [{ topK: 36 }, /topK is 36; takes 1 to 35/],
    [{ keysX: 2.5 }, /keysX is 2.5/],
    [{ keysX: 65536, keysY: 65536 }, /keysX \* keysY is 65536 \* 65536/],
    [{ numExperts: 34 }, /numExperts is 34; takes at least 35/],
    [{ intermediateSize: 0 }, /intermediateSize is 0/],
    [{ activation: "swiglu" as never }, /activation is swiglu; takes one of silu, gelu/],
    [{ norm: "batch" as never }, /norm is batch; takes one of hidden, logits, none/],
  ])("refuses %o", async (change, message) => {
    const error = await FlashMoE.create(backend, { ...options, ...change }).catch(
      (caught: unknown) => caught,
    );
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringMatching(message) });
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("refuses hidden states that do not fit, naming them", async () => {
    const layer = await FlashMoE.create(backend, options);
    expect(code(() => layer.forward(states([4, 11])))).toMatch(
      /^INVALID_ARGUMENT hiddenStates has the shape \[4,11\]; takes .* hiddenSize 12/,
    );
    const half = backend.upload(new Float32Array(12), [1, 12], "f16");
    expect(code(() => layer.forward(half))).toMatch(/^INVALID_ARGUMENT hiddenStates is f16; takes f32/);
    const other = await reference.open();
    const foreign = other.upload(new Float32Array(12), [1, 12]);
    expect(code(() => layer.forward(foreign))).toMatch(/^FOREIGN_BUFFER hiddenStates/);
    await other.dispose();
  });

  it("moves to another backend bit for bit, all or nothing", async () => {
    const layer = await FlashMoE.create(backend, options);
    const x = states();
    layer.record(x).dispose();
    const expected = await layer.forward(x).read();
    const bytes = layer.slots().reduce((sum, slot) => sum + slot.tensor.buffer.byteLength, 0);
    const cramped = await reference.open({ memoryLimitBytes: bytes - 4 });
    await expect(layer.moveTo(cramped)).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
    expect(cramped.memory().liveBytes).toBe(0);
    expect(layer.backend).toBe(backend);
    expect(await layer.forward(x).read()).toEqual(expected);
    const controller = new AbortController();
    const reason = new Error("enough");
    const stopAfterOne = { signal: controller.signal, onProgress: () => controller.abort(reason) };
    const other = await reference.open();
    await expect(layer.moveTo(other, stopAfterOne)).rejects.toBe(reason);
    expect(other.memory().liveBytes).toBe(0);
    let last = 0;
    await layer.moveTo(other, { onProgress: ({ loaded }) => (last = loaded) });
    expect(last).toBe(bytes);
    const moved = other.upload(await x.read(), x.shape);
    expect(await layer.forward(moved).read()).toEqual(expected);
    await cramped.dispose();
    await other.dispose();
  });

  it("estimates nothing for what cannot be", () => {
    expect(code(() => estimateMemory(options, 1.5))).toMatch(/^INVALID_ARGUMENT tokens is 1.5/);
    expect(code(() => estimateMemory(options, Number.NaN))).toMatch(/^INVALID_ARGUMENT tokens is NaN/);
    expect(code(() => estimateMemory(options, 1, { mode: "both" as never }))).toMatch(
      /^INVALID_ARGUMENT mode is both; takes one of forward, backward, train/,
    );
    expect(code(() => estimateMemory(options, 1, { tables: "all" as never }))).toMatch(
      /^INVALID_ARGUMENT tables is all/,
    );
    expect(code(() => estimateMemory(options, 1, { dtype: "f64" as never }))).toMatch(
      /^INVALID_ARGUMENT dtype is f64/,
    );
  });

  it.each(["hidden", "logits", "none"] as const)(
    "needs the memory that was estimated, norm %s",
    async (norm) => {
      const config = { ...options, norm };
      for (const dtype of ["f32", "bf16"] as const) {
        for (const tables of ["dense", "compact"] as const) {
          const fresh = await reference.open();
          const layer = await FlashMoE.create(fresh, config, { dtype });
          const estimate = estimateMemory(config, tokens, { dtype, mode: "backward", tables });
          expect(fresh.memory().liveBytes).toBe(estimate.parameterBytes);
          const x = fresh.upload(new Float32Array(tokens * 12).map(Math.cos), [tokens, 12], dtype);
          const recording = layer.record(x, { training: false });
          const dy = fresh.upload(new Float32Array(tokens * 12).fill(1), [tokens, 12], dtype);
          const held = fresh.memory().liveBytes;
          const gradients = recording.backward(dy, { tables });
          const kept = fresh.memory().liveBytes - held;
          expect(kept).toBe(estimate.gradientBytes + 4 * tokens * 12);
          expect(held + kept).toBeLessThanOrEqual(estimate.totalBytes);
          gradients.dispose();
          await fresh.dispose();
        }
      }
    },
  );
});
