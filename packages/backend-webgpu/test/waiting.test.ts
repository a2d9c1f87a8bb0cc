import { type Backend, type DeviceBuffer, type ExpertsForwardCall, timeKernels } from "@flash-moe/core";
import { describe, expect } from "vitest";
import {
  altered,
  itOnAdapter as it,
  openBackend,
  openDevice,
  openSmallDevice,
  usage,
} from "./helpers/open.js";

/** A call that may report ids, of one token and one expert. */
function oneExpert(on: Backend, id: number): ExpertsForwardCall {
  const one = (): DeviceBuffer => on.alloc("f32", 1);
  const sizes = { tokens: 1, hiddenSize: 1, numExperts: 1, topK: 1, activation: "relu" as const };
  const ids = on.upload(Int32Array.of(id), [1]).buffer;
  return { ...sizes, hiddenStates: one(), down: one(), up: one(), ids, weights: one(), output: one() };
}

/** Takes all that the budget has left. */
function fill(on: Backend): DeviceBuffer {
  const { limitBytes, liveBytes } = on.memory();
  const filler = on.alloc("f32", (limitBytes! - liveBytes) / 4);
  expect(on.memory()).toMatchObject({ liveBytes: limitBytes, scratchBytes: 0 });
  return filler;
}

describe("where the budget is full to the last byte", () => {
  it("small results can be read, and what is wrong is told", async () => {
    const own = await openBackend({ memoryLimitBytes: 2 ** 20 });
    const right = oneExpert(own, 0);
    const wrong = oneExpert(own, 7);
    own.ops.expertsForward(right);
    const filler = fill(own);
    await own.sync();
    expect(await own.read(filler, 1000, 2)).toEqual(Float32Array.of(0, 0));
    filler.dispose();
    own.ops.expertsForward(wrong);
    fill(own);
    await expect(own.sync()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await own.read(right.output)).toEqual(Float32Array.of(0));
    await own.dispose();
  });

  it("dispose ends well", async () => {
    const own = await openBackend({ memoryLimitBytes: 2 ** 20 });
    own.ops.expertsForward(oneExpert(own, 0));
    fill(own);
    await own.dispose();
  });

  it("a large read is counted", async () => {
    const own = await openBackend({ memoryLimitBytes: 2 ** 20 });
    const filler = fill(own);
    await expect(own.read(filler)).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
    expect(own.memory().scratchBytes).toBe(0);
    await own.dispose();
  });
});

describe("a read of more than one GPUBuffer can hold", () => {
  const mostBytes = 2 ** 17;

  for (const [dtype, length, offset] of [
    ["f32", 80_000, 0],
    ["f32", 80_000, 3],
    ["f16", 160_001, 1],
    ["bf16", 160_001, 2],
  ] as const) {
    it(`gives all elements: ${length} ${dtype} from ${offset} on`, async () => {
      const device = await openSmallDevice(mostBytes);
      const own = await openBackend({ device });
      const buffer = own.alloc(dtype, length);
      const values = Uint16Array.from({ length }, (_, n) => n % 60_000);
      const data = dtype === "f32" ? Float32Array.from(values) : values;
      own.write(buffer, data);
      expect(await own.read(buffer, offset)).toEqual(data.slice(offset));
      await own.dispose();
      device.destroy();
    });
  }
});

it("an intermediate may be as large as the device binds", async () => {
  // Rounded up so that others can use it too, 115,000 bytes would be 122,880.
  const device = await openSmallDevice(118_000);
  const own = await openBackend({ device });
  const tokens = 28_750;
  const each = (value: number): DeviceBuffer =>
    own.upload(new Float32Array(tokens).fill(value), [tokens]).buffer;
  const call = {
    ...oneExpert(own, 0),
    tokens,
    ids: own.alloc("i32", tokens),
    output: own.alloc("f32", tokens),
  };
  own.write(call.down, Float32Array.of(3));
  own.write(call.up, Float32Array.of(5));
  own.ops.expertsForward({ ...call, hiddenStates: each(2), weights: each(1) });
  expect(await own.read(call.output, tokens - 2)).toEqual(Float32Array.of(30, 30));
  await own.dispose();
  device.destroy();
});

it("a device that refuses the copy for a read fails that read alone, and nothing stays counted", async () => {
  const device = await openDevice();
  let refusing = true;
  const own = await openBackend({
    device: altered(device, {
      createBuffer: ({ usage: flags, ...rest }: GPUBufferDescriptor) => {
        // Memory that is mapped cannot be storage.
        const refused = refusing && (flags & usage.mapRead) !== 0;
        return device.createBuffer({ ...rest, usage: refused ? flags | usage.storage : flags });
      },
    }),
  });
  const length = 2 ** 16;
  const { buffer } = own.upload(new Float32Array(length).fill(1), [length]);
  await expect(own.read(buffer)).rejects.toThrow("a copy for read: ");
  expect(own.memory().scratchBytes).toBe(0);
  refusing = false;
  await own.sync();
  expect(await own.read(buffer, length - 1)).toEqual(Float32Array.of(1));
  await own.dispose();
  device.destroy();
});

it("sync and dispose end where the runtime never settles onSubmittedWorkDone", async () => {
  const device = await openDevice();
  const { queue } = device;
  const forgetful = new Proxy(queue, {
    get(target, key) {
      if (key === "onSubmittedWorkDone") return () => new Promise(() => {});
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const own = await openBackend({ device: altered(device, { queue: forgetful }) });
  own.upload([1, 2, 3], [3]);
  await own.sync();
  await own.dispose();
  device.destroy();
});

describe("a device that goes without saying so", () => {
  for (const [what, wait] of [
    ["a read", (own: Backend, buffer: DeviceBuffer) => own.read(buffer)],
    ["sync", (own: Backend) => own.sync()],
    ["timeKernels", (own: Backend, buffer: DeviceBuffer) => timeKernels(own, () => work(own, buffer))],
  ] as const) {
    it(`is DEVICE_LOST to ${what} at once`, async () => {
      const device = await openDevice(["timestamp-query"]);
      const own = await openBackend({ device: altered(device, { lost: new Promise(() => {}) }) });
      const { buffer } = own.upload([1, 2, 3], [3]);
      const waiting = wait(own, buffer);
      device.destroy();
      await expect(waiting).rejects.toMatchObject({ code: "DEVICE_LOST" });
      await expect(own.sync()).rejects.toMatchObject({ code: "DEVICE_LOST" });
      await own.dispose();
    });
  }
});

function work(on: Backend, a: DeviceBuffer): void {
  const output = on.alloc("f32", 9);
  on.ops.linear({ rows: 3, inner: 1, columns: 3, a, b: on.alloc("f32", 3), output });
}
