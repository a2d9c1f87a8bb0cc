import { gpuRanges, wrapGpuBuffer } from "@flash-moe/backend-webgpu";
import { type Backend, type ErrorCode, FlashMoeError } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itOnAdapter as it, openBackend, openDevice, usage, withoutAdapter } from "./helpers/open.js";

const all = usage.storage | usage.copySource | usage.copyTarget;

let device: GPUDevice;
let backend: Backend;
beforeAll(async () => {
  if (withoutAdapter) return;
  device = await openDevice();
  backend = await openBackend({ device });
});
afterAll(async () => {
  await backend?.dispose();
  device?.destroy();
});

function codeOf(work: () => unknown): ErrorCode | undefined {
  try {
    work();
  } catch (error) {
    return FlashMoeError.is(error) ? error.code : undefined;
  }
  return undefined;
}

function make(values: Float32Array<ArrayBuffer>, flags: number = all): GPUBuffer {
  const buffer = device.createBuffer({ size: values.byteLength, usage: flags | usage.copyTarget });
  device.queue.writeBuffer(buffer, 0, values);
  return buffer;
}

/** 2 * input, in place of its work: doubles with a product by the matrix [2]. */
function double(input: ReturnType<typeof wrapGpuBuffer>, output: ReturnType<typeof wrapGpuBuffer>): void {
  const two = backend.upload([2], [1, 1]);
  const size = { rows: input.length, inner: 1, columns: 1 };
  backend.ops.linear({ ...size, a: input, b: two.buffer, output });
  two.buffer.dispose();
}

describe("a GPUBuffer of somebody else's", () => {
  it("is read and written where it is", async () => {
    const theirs = make(Float32Array.of(1, 2, 3));
    const theirOutput = make(new Float32Array(3));
    const before = backend.memory().liveBytes;
    const input = wrapGpuBuffer(backend, theirs, "f32", 3);
    const output = wrapGpuBuffer(backend, theirOutput, "f32", 3);
    expect(backend.memory().liveBytes).toBe(before);
    double(input, output);
    const [range] = gpuRanges(backend, output);
    expect(range).toEqual({ buffer: theirOutput, byteOffset: 0, byteLength: 12 });
    // Their own submission comes after ours, and ours after theirs.
    const copy = device.createCommandEncoder();
    copy.copyBufferToBuffer(theirOutput, 0, theirs, 0, 12);
    device.queue.submit([copy.finish()]);
    double(input, output);
    expect(await backend.read(output)).toEqual(Float32Array.of(4, 8, 12));
    input.dispose();
    output.dispose();
    // Still theirs.
    expect(await backend.read(wrapGpuBuffer(backend, theirs, "f32", 3))).toEqual(Float32Array.of(2, 4, 6));
    theirs.destroy();
    theirOutput.destroy();
  });

  it("may begin later than the GPUBuffer does", async () => {
    const theirs = make(Float32Array.from({ length: 100 }, (_, n) => n));
    const part = wrapGpuBuffer(backend, theirs, "f32", 36, { byteOffset: 256, label: "part" });
    expect(part.label).toBe("part");
    expect(await backend.read(part, 1, 3)).toEqual(Float32Array.of(65, 66, 67));
    theirs.destroy();
  });

  it("is split where it is larger than a binding, and taken where a table is", async () => {
    const split = await openBackend({ device, bindingLimitBytes: 512 });
    const [experts, hiddenSize] = [100, 3];
    const theirs = make(Float32Array.from({ length: 64 + experts * hiddenSize }, (_, n) => n - 64));
    const table = wrapGpuBuffer(split, theirs, "f32", experts * hiddenSize, { byteOffset: 256 });
    expect(gpuRanges(split, table)).toEqual([
      { buffer: theirs, byteOffset: 256, byteLength: 512 },
      { buffer: theirs, byteOffset: 768, byteLength: 512 },
      { buffer: theirs, byteOffset: 1280, byteLength: 176 },
    ]);
    const output = split.alloc("f32", hiddenSize);
    const states = split.upload([1, 0, 0], [hiddenSize]).buffer;
    // The row of the first, and one that lies across the second cut.
    const ids = split.upload(Int32Array.of(0, 85), [2]).buffer;
    const weights = split.upload([1, 1], [2]).buffer;
    const shape = { tokens: 1, hiddenSize, numExperts: experts, topK: 2, activation: "relu" } as const;
    split.ops.expertsForward({
      ...shape,
      ...{ hiddenStates: states, down: table, up: table, ids, weights, output },
    });
    expect(await split.read(output)).toEqual(Float32Array.of(255 * 255, 255 * 256, 255 * 257));
    const sizes = { rows: 1, inner: 300, columns: 1 };
    const product = { ...sizes, a: table, b: split.alloc("f32", 300), output: split.alloc("f32", 1) };
    expect(codeOf(() => split.ops.linear(product))).toBe("UNSUPPORTED");
    await split.dispose();
    theirs.destroy();
  });

  it("is refused when it cannot be used", async () => {
    const readOnly = device.createBuffer({ size: 16, usage: usage.storage });
    expect(codeOf(() => wrapGpuBuffer(backend, readOnly, "f32", 4))).toBe("INVALID_ARGUMENT");
    expect(() => wrapGpuBuffer(backend, readOnly, "f32", 4)).toThrow(
      /usage 128.*STORAGE, COPY_SRC and COPY_DST/,
    );
    const short = make(new Float32Array(4));
    expect(codeOf(() => wrapGpuBuffer(backend, short, "f32", 5))).toBe("INVALID_ARGUMENT");
    for (const none of [undefined, null, {}, new Float32Array(4), "a buffer"]) {
      expect(codeOf(() => wrapGpuBuffer(backend, none as GPUBuffer, "f32", 1))).toBe("INVALID_ARGUMENT");
    }
    for (const byteOffset of [4, -256, 0.5]) {
      expect(codeOf(() => wrapGpuBuffer(backend, short, "f32", 1, { byteOffset }))).toBe("INVALID_ARGUMENT");
    }
    const other = await reference.open();
    expect(codeOf(() => wrapGpuBuffer(other, short, "f32", 4))).toBe("INVALID_ARGUMENT");
    readOnly.destroy();
    short.destroy();
  });

  it("of another device makes the next await fail, by the name of the op", async () => {
    const stranger = await openDevice();
    const theirs = stranger.createBuffer({ size: 16, usage: all });
    const input = wrapGpuBuffer(backend, theirs, "f32", 4);
    const output = backend.alloc("f32", 4);
    double(input, output);
    const error = await backend.sync().catch((thrown: unknown) => thrown);
    expect(FlashMoeError.is(error) && error.code).toBe("BACKEND_FAILED");
    expect(String(error)).toContain("linear");
    await backend.sync();
    output.dispose();
    stranger.destroy();
  });

  it("that was destroyed makes the next await fail", async () => {
    const theirs = make(new Float32Array(4));
    const input = wrapGpuBuffer(backend, theirs, "f32", 4);
    theirs.destroy();
    const output = backend.alloc("f32", 4);
    double(input, output);
    const error = await backend.read(output).catch((thrown: unknown) => thrown);
    expect(FlashMoeError.is(error) && error.code).toBe("BACKEND_FAILED");
    output.dispose();
  });
});

it("a buffer larger than a binding is several ranges", async () => {
  const split = await openBackend({ device, bindingLimitBytes: 512 });
  const buffer = split.upload(
    Float32Array.from({ length: 300 }, (_, n) => n),
    [300],
  ).buffer;
  expect(gpuRanges(split, buffer).map(({ byteLength }) => byteLength)).toEqual([512, 512, 176]);
  await split.dispose();
});

it("two backends share a device, and leave it alive", async () => {
  const second = await openBackend({ device });
  const ours = backend.upload([1, 2], [2]);
  const theirs = second.upload([3, 4], [2]);
  expect(codeOf(() => backend.copy(theirs.buffer, ours.buffer))).toBe("FOREIGN_BUFFER");
  await second.dispose();
  expect(await ours.read()).toEqual(Float32Array.of(1, 2));
  ours.buffer.dispose();
  expect(codeOf(() => second.alloc("f32", 1))).toBe("DISPOSED");
});
