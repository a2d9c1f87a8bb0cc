import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type Backend, type ExpertsForwardCall, FlashMoeError, SeededRandom } from "@flash-moe/core";
import { afterAll, beforeAll, describe, expect, vi } from "vitest";
import {
  altered,
  bareAdapter,
  itOnAdapter as it,
  openBackend,
  openDevice,
  openFragileDevice,
  withoutAdapter,
} from "./helpers/open.js";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

let backend: Backend;
beforeAll(async () => {
  if (withoutAdapter) return;
  backend = await openBackend();
});
afterAll(() => backend?.dispose());

/** What a layer of one token enqueues for its forward in evaluation. */
function oneToken(on: Backend): void {
  const [H, I, X, Y, k] = [64, 128, 32, 32, 16];
  const floats = (length: number) => on.alloc("f32", length);
  const experts = X * Y;
  const logits = floats(X + Y);
  const mlp = floats(H);
  const shared = {
    tokens: 1,
    hiddenSize: H,
    activation: "silu" as const,
    hiddenStates: floats(H),
  };
  const route = { ids: on.alloc("i32", k), weights: floats(k) };
  const inputNorm = { mean: floats(H), variance: floats(H), epsilon: 1e-5 };
  on.ops.linear({
    rows: 1,
    inner: H,
    columns: X + Y,
    a: shared.hiddenStates,
    b: floats((X + Y) * H),
    transposeB: true,
    output: logits,
    inputNorm,
  });
  on.ops.routerSelectForward({
    tokens: 1,
    keysX: X,
    keysY: Y,
    topK: k,
    normalizeWeights: true,
    logits,
    ...route,
  });
  const weights = { gate: floats(I * H), up: floats(I * H), down: floats(H * I) };
  on.ops.mlpForward({ ...shared, intermediateSize: I, ...weights, output: mlp });
  const tables = { down: floats(experts * H), up: floats(experts * H) };
  on.ops.expertsForward({
    ...shared,
    numExperts: experts,
    topK: k,
    ...tables,
    ...route,
    addend: mlp,
    output: floats(H),
  });
}

/** Watches a method of every compute pass of Dawn. */
async function spyOnPass(name: "dispatchWorkgroups" | "dispatchWorkgroupsIndirect") {
  const { globals } = (await import("webgpu")) as unknown as {
    globals: { GPUComputePassEncoder: { prototype: GPUComputePassEncoder } };
  };
  return vi.spyOn(globals.GPUComputePassEncoder.prototype, name);
}

describe("work", () => {
  it("of one token through a whole layer is at most six dispatches", async () => {
    const dispatches = await spyOnPass("dispatchWorkgroups");
    oneToken(backend);
    expect(dispatches.mock.calls.length).toBeLessThanOrEqual(6);
    dispatches.mockRestore();
    await backend.sync();
  });

  it("of more workgroups than a dimension takes is folded", async () => {
    // 70,001 rows of one column: as many workgroups, four rows and 128 threads each, in tiles of one.
    const length = 70_001 * 256;
    const input = backend.alloc("f32", length);
    const mean = backend.upload([1], [1]);
    const variance = backend.upload([1], [1]);
    const output = backend.alloc("f32", length);
    backend.ops.batchNormForward({
      training: false,
      tokens: length,
      features: 1,
      epsilon: 0,
      input,
      mean: mean.buffer,
      variance: variance.buffer,
      output,
    });
    expect(await backend.read(output, length - 3)).toEqual(Float32Array.of(-1, -1, -1));
    for (const buffer of [input, output, mean.buffer, variance.buffer]) buffer.dispose();
  });

  it("whose size only the device knows is dispatched by the device", async () => {
    const rows = 1000;
    const dispatches = await spyOnPass("dispatchWorkgroupsIndirect");
    const ids = Int32Array.from({ length: rows }, (_, n) => n);
    const tensors = {
      parameter: backend.zeros([rows, 1], "f16"),
      firstMoment: backend.zeros([rows, 1]),
      secondMoment: backend.zeros([rows, 1]),
      gradient: backend.upload(new Float32Array(rows).fill(1), [rows, 1]),
      ids: backend.upload(ids, [rows]),
    };
    const { parameter, firstMoment, secondMoment, gradient } = tensors;
    const step = (used: number): void => {
      const count = backend.upload(Int32Array.of(used), [1]);
      backend.ops.adamw({
        ...{ rows, columns: 1, parameter: parameter.buffer, gradient: gradient.buffer },
        ...{ firstMoment: firstMoment.buffer, secondMoment: secondMoment.buffer },
        ...{
          step: 1,
          learningRate: 0.5,
          beta1: 0.5,
          beta2: 0.5,
          epsilon: 0,
          weightDecay: 0,
          gradientScale: 1,
        },
        compact: { capacity: rows, ids: tensors.ids.buffer, count: count.buffer },
      });
      count.dispose();
    };
    step(rows);
    expect(dispatches.mock.calls).toHaveLength(1);
    dispatches.mockRestore();
    expect(await backend.read(parameter.buffer, rows - 1)).toEqual(Uint16Array.of(0xb800));
    const moments = (await firstMoment.read()) as Float32Array;
    expect(moments.findIndex((value) => value !== 0.5)).toBe(-1);
    // Few of them: no others are touched.
    step(3);
    expect(await backend.read(firstMoment.buffer, 0, 5)).toEqual(Float32Array.of(0.75, 0.75, 0.75, 0.5, 0.5));
    for (const tensor of Object.values(tensors)) tensor.dispose();
  });

  it("that asks for no memory leaves none: create, run and dispose, 1,000 times", async () => {
    const before = backend.memory().liveBytes;
    const random = new SeededRandom(1);
    const run = (): void => {
      const x = backend.upload(
        Float32Array.from({ length: 12 }, () => random.normal()),
        [3, 4],
      );
      const w = backend.upload(new Float32Array(20), [5, 4]);
      const y = backend.zeros([3, 5]);
      const call = { rows: 3, inner: 4, columns: 5, transposeB: true };
      backend.ops.linear({ ...call, a: x.buffer, b: w.buffer, output: y.buffer });
      for (const { buffer } of [x, w, y]) buffer.dispose();
    };
    run();
    await backend.sync();
    const scratch = backend.memory().scratchBytes;
    for (let n = 0; n < 1000; n++) run();
    await backend.sync();
    expect(backend.memory().liveBytes).toBe(before);
    expect(backend.memory().scratchBytes).toBe(scratch);
  });
});

describe("a split buffer where an op takes it whole", () => {
  it("is UNSUPPORTED, by its name and sizes", async () => {
    const split = await openBackend({ bindingLimitBytes: 512 });
    const a = split.alloc("f32", 300);
    const output = split.alloc("f32", 300);
    const b = split.alloc("f32", 1);
    const call = { rows: 300, inner: 1, columns: 1, a, b, output };
    const error = await split.prepare("linear", call).catch((thrown: unknown) => thrown);
    expect(FlashMoeError.is(error) && error.code).toBe("UNSUPPORTED");
    expect(String(error)).toContain("linear: a takes 1200 bytes");
    expect(() => split.ops.linear(call)).toThrow("linear: a takes 1200 bytes");
    await split.dispose();
  });
});

/** A call with an id out of range in its second token. */
function badCall(on: Backend): ExpertsForwardCall {
  const f = (length: number) => on.alloc("f32", length);
  const ids = on.upload(Int32Array.of(0, 1, 2, 70), [2, 2]).buffer;
  const sizes = { tokens: 2, hiddenSize: 3, numExperts: 5, topK: 2 };
  const tables = { down: f(15), up: f(15) };
  return { ...sizes, ...tables, activation: "silu", hiddenStates: f(6), ids, weights: f(4), output: f(6) };
}

it("an id out of range is told with its place, its value and what is accepted", async () => {
  backend.ops.expertsForward(badCall(backend));
  await expect(backend.sync()).rejects.toThrow(
    "expertsForward: ids holds 70 for token 1, slot 1; takes expert ids from 0 to 4",
  );
});

it("an id out of range is told as precisely after more sizes of calls than are told apart at once", async () => {
  for (let numExperts = 1; numExperts <= 300; numExperts++) {
    const f = (length: number) => backend.alloc("f32", length);
    const ids = backend.alloc("i32", 1);
    const call = {
      tokens: 1,
      hiddenSize: 1,
      numExperts,
      topK: 1,
      activation: "silu",
      hiddenStates: f(1),
    } as const;
    const tables = { down: f(numExperts), up: f(numExperts) };
    backend.ops.expertsForward({ ...call, ...tables, ids, weights: f(1), output: f(1) });
    if (numExperts % 100 === 0) await backend.sync();
  }
  backend.ops.expertsForward(badCall(backend));
  await expect(backend.sync()).rejects.toThrow("expertsForward: ids holds 70 for token 1, slot 1");
});

describe("a device that is lost", () => {
  it("by its owner gives DEVICE_LOST to what waits and to what comes", async () => {
    const device = await openDevice();
    const own = await openBackend({ device });
    const buffer = own.upload(new Float32Array(1000), [1000]).buffer;
    const reading = own.read(buffer).catch((error: unknown) => error);
    device.destroy();
    const loss = await own.lost;
    expect(loss.reason).toBe("destroyed");
    const outcome = await reading;
    expect(
      outcome instanceof Float32Array || (FlashMoeError.is(outcome) && outcome.code === "DEVICE_LOST"),
    ).toBe(true);
    expect(() => own.alloc("f32", 1)).toThrow(/lost its device/);
    await expect(own.sync()).rejects.toMatchObject({ code: "DEVICE_LOST" });
    await own.dispose();
  });
});

describe("a device that fails by itself", () => {
  it("gives DEVICE_LOST to what waits and to what comes", async () => {
    const { device, lose } = await openFragileDevice();
    const own = await openBackend({ device });
    const { buffer } = own.upload(new Float32Array(1000), [1000]);
    const waiting = [own.read(buffer), own.sync(), own.prepare("expertsForward", badCall(own))];
    const outcomes = Promise.allSettled(waiting);
    lose({ reason: "unknown", message: "the GPU hung" });
    expect(await own.lost).toEqual({ reason: "unknown", message: "the GPU hung" });
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "DEVICE_LOST" } });
    }
    await expect(own.read(buffer)).rejects.toThrow("has lost its device (unknown): the GPU hung");
    await own.dispose();
    device.destroy();
  });
});

it("an error that nobody caught rejects the next await", async () => {
  let device!: GPUDevice;
  const adapter = await bareAdapter((opened) => {
    device = opened;
  });
  const own = await openBackend({ adapter });
  // Memory that is mapped cannot be storage.
  device.createBuffer({ size: 4, usage: 0x1 | 0x80 });
  // It is an event, which may come after the work.
  await device.queue.onSubmittedWorkDone();
  await new Promise((resolve) => setTimeout(resolve, 20));
  const error = await own.sync().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("BACKEND_FAILED");
  expect(String(error)).toContain("webgpu: ");
  await own.sync();
  await own.dispose();
});

it("gives up large memory soon, also while commands wait to be submitted", async () => {
  const device = await openDevice();
  let held = 0;
  let most = 0;
  const own = await openBackend({
    device: altered(device, {
      createBuffer: (descriptor: GPUBufferDescriptor) => {
        const buffer = device.createBuffer(descriptor);
        const destroy = vi.spyOn(buffer, "destroy");
        destroy.mockImplementation(() => {
          held -= descriptor.size;
          destroy.mockRestore();
          buffer.destroy();
        });
        held += descriptor.size;
        most = Math.max(most, held);
        return buffer;
      },
    }),
  });
  const size = 2 ** 24;
  const [source, target] = [own.alloc("f32", 4), own.alloc("f32", 4)];
  for (let n = 0; n < 50; n++) {
    own.copy(source, target);
    own.alloc("f32", size / 4).dispose();
  }
  expect(most).toBeLessThan(10 * size);
  await own.dispose();
  device.destroy();
});

it("has room for a buffer where scratch is only kept for later", async () => {
  const limit = 2 ** 20;
  const own = await openBackend({ memoryLimitBytes: limit });
  oneToken(own);
  const { liveBytes, scratchBytes } = own.memory();
  expect(scratchBytes).toBeGreaterThan(0);
  const buffer = own.alloc("f32", (limit - liveBytes) / 4);
  expect(own.memory()).toMatchObject({ liveBytes: limit, scratchBytes: 0 });
  buffer.dispose();
  await own.dispose();
});

describe("dispose", () => {
  it("waits for a read that is under way", async () => {
    const own = await openBackend();
    const reading = own.read(own.upload([1, 2, 3], [3]).buffer);
    await own.dispose();
    expect(await reading).toEqual(Float32Array.of(1, 2, 3));
  });

  it("leaves nothing behind on a device that lives on", async () => {
    const device = await openDevice();
    const open = async () => {
      const own = await openBackend({ device });
      await own.read(own.upload([1], [1]).buffer);
      await own.dispose();
      return new WeakRef(own);
    };
    const disposed = await open();
    // What promises have held is let go in later turns.
    await vi.waitFor(() => {
      collectGarbage();
      // Not the backend itself: the failure would hold it.
      expect(disposed.deref() === undefined).toBe(true);
    });
    device.destroy();
  });

  it("leaves nothing behind that keeps the process alive", async () => {
    // Timers come and go with the test framework.
    const passing = new Set(["Timeout", "Immediate", "CloseReq"]);
    const active = () => process.getActiveResourcesInfo().filter((name) => !passing.has(name));
    const before = active().toSorted();
    const own = await openBackend();
    await own.read(own.upload([1], [1]).buffer);
    await own.dispose();
    // The event loop closes what was closed in its next turn.
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(active().toSorted()).toEqual(before);
  });
});
