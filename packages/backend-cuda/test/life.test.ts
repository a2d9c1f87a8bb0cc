import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Backend, FlashMoeError, timeKernels, together } from "@flash-moe/core";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { itOnShim as it, openShim, shim, shimBinary } from "./helpers/shim.js";

/** Runs one of the lives of helpers/life.mjs; it has to end well and quietly. */
async function live(name: string, environment: Record<string, string> = {}): Promise<unknown> {
  const script = fileURLToPath(new URL("helpers/life.mjs", import.meta.url));
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ["--expose-gc", script, name, shimBinary()],
    { env: { ...process.env, ...environment } },
  );
  expect(stderr).toBe("");
  return stdout === "" ? undefined : JSON.parse(stdout);
}

describe("a process", () => {
  it("exits with work in flight", async () => {
    expect(await live("exit with work in flight")).toBeUndefined();
  });

  it("ends without dispose", async () => {
    expect(await live("end without dispose")).toBe("ended");
  });

  it("waits for a read that somebody waits for", async () => {
    expect(await live("end after a pending read")).toBe(64);
  });

  it("has a backend in each of several threads", async () => {
    expect(await live("two threads")).toEqual({ own: 64, theirs: [640, 640], after: 64 });
  });

  it("outlives a thread that is ended with work in flight", async () => {
    expect(await live("a thread that is ended with work in flight")).toEqual({ code: 1, value: 64 });
  });

  it("keeps the binary after the thread that alone had loaded it", async () => {
    expect(await live("a thread that alone had the binary")).toEqual({ sum: 640, loaded: true, value: 64 });
  });

  it("collects backends that nobody disposes of", async () => {
    expect(await live("backends that nobody disposes of")).toBe("ended");
  });

  it("goes on after OUT_OF_MEMORY of the device", async () => {
    const life = live("memory that is not there", { FLASH_MOE_SHIM_DEVICE: `memory=${2 ** 26}` });
    const refused = "OUT_OF_MEMORY";
    expect(await life).toEqual({ codes: [refused, refused, refused], same: true, value: 128 });
  });

  it("is told that the device is lost, with CUDA's name for it", async () => {
    expect(await live("a device that dies", { FLASH_MOE_SHIM_FAULT: "launch:0:700" })).toEqual({
      codes: ["DEVICE_LOST", "DEVICE_LOST", "DEVICE_LOST", "DISPOSED"],
      reason: "unknown",
      message: expect.stringMatching(/cudaErrorIllegalAddress \(700\)/),
    });
  });
});

describe("reads", () => {
  let backend: Backend;
  beforeAll(async () => {
    if (!("reason" in shim)) backend = await openShim();
  });
  afterAll(() => backend?.dispose());

  it("come in order, many in flight, each with what was there when it was asked for", async () => {
    const buffer = backend.alloc("i32", 1000);
    const order: number[] = [];
    const reads = Array.from({ length: 300 }, (_, n) => {
      backend.write(buffer, new Int32Array(1000).fill(n));
      return backend.read(buffer).then((data) => {
        order.push(n);
        return data[999];
      });
    });
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 300 }, (_, n) => n));
    expect(order).toEqual(Array.from({ length: 300 }, (_, n) => n));
    buffer.dispose();
  });

  it("of more than one piece of page-locked memory are whole", async () => {
    const length = 20_000_003;
    const data = Int32Array.from({ length }, (_, n) => n);
    const buffer = backend.alloc("i32", length, { zeroed: false });
    backend.write(buffer, data);
    const read = await backend.read(buffer, 7);
    expect(read.length).toBe(length - 7);
    expect(Buffer.compare(new Uint8Array(read.buffer), new Uint8Array(data.buffer, 28))).toBe(0);
    buffer.dispose();
  });

  it("take memory that is shared with other threads", async () => {
    const shared = new Float32Array(new SharedArrayBuffer(40));
    shared.set([1, 2, 3]);
    const buffer = backend.alloc("f32", 10);
    backend.write(buffer, shared);
    expect([...(await backend.read(buffer, 0, 3))]).toEqual([1, 2, 3]);
    buffer.dispose();
  });

  it("end when the backend is disposed of meanwhile", async () => {
    const own = await openShim();
    const buffer = own.upload([5, 6], [2]);
    const reads = Array.from({ length: 20 }, () => buffer.read());
    await own.dispose();
    for (const read of reads) expect(await read).toEqual(Float32Array.of(5, 6));
    await expect(buffer.read()).rejects.toMatchObject({ code: "DISPOSED" });
  });
});

it("names the op that has met an id out of range", async () => {
  const backend = await openShim();
  const floats = (length: number) => backend.alloc("f32", length);
  const call = { tokens: 1, hiddenSize: 4, numExperts: 3, topK: 2, activation: "silu" } as const;
  const ids = backend.upload(Int32Array.of(1, 3), [1, 2]);
  backend.ops.expertsForward({
    ...call,
    hiddenStates: floats(4),
    down: floats(12),
    up: floats(12),
    ids: ids.buffer,
    weights: floats(2),
    output: floats(4),
  });
  const error = await backend.sync().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("INVALID_ARGUMENT");
  expect(error).toHaveProperty("message", expect.stringMatching(/^expertsForward: 1 ids/));
  await backend.dispose();
});

it("has room for a buffer where calls that repeat keep scratch", async () => {
  const backend = await openShim({ memoryLimitBytes: 2 ** 20 });
  const [tokens, topK] = [64, 512];
  const floats = (length: number) => backend.alloc("f32", length);
  // Odd rows, of which all inner products are made first.
  const call = { tokens, hiddenSize: 3, numExperts: 5, topK, activation: "silu" } as const;
  const buffers = {
    hiddenStates: floats(tokens * 3),
    down: floats(15),
    up: floats(15),
    ids: backend.alloc("i32", tokens * topK),
    weights: floats(tokens * topK),
    output: floats(tokens * 3),
  };
  const forward = () => backend.ops.expertsForward({ ...call, ...buffers });
  for (let run = 0; run < 2; run++) forward();
  expect(backend.memory().scratchBytes).toBe(tokens * topK * 4);
  const rest = 2 ** 20 - backend.memory().liveBytes;
  const buffer = backend.alloc("i32", rest / 4);
  expect(backend.memory()).toMatchObject({ liveBytes: 2 ** 20, scratchBytes: 0 });
  expect(forward).toThrow(expect.objectContaining({ code: "OUT_OF_MEMORY" }));
  buffer.dispose();
  for (let run = 0; run < 2; run++) forward();
  await backend.sync();
  await backend.dispose();
});

it("begins none of several ops where one of them has no room, and times no kernel that did not run", async () => {
  const limit = 2 ** 20;
  const backend = await openShim({ memoryLimitBytes: limit });
  const [tokens, hiddenSize, intermediateSize] = [6, 8, 40];
  const floats = (length: number) =>
    backend.upload(
      Float32Array.from({ length }, (_, i) => Math.sin(i * 1.7)),
      [length],
    );
  const [one, all, gate, up, down] = [1, tokens, intermediateSize, intermediateSize, intermediateSize].map(
    (rows) => floats(rows * hiddenSize).buffer,
  );
  const gradient = floats(intermediateSize * hiddenSize);
  const backward = (count: number) => {
    const states = count === 1 ? one : all;
    backend.ops.mlpBackward({
      ...{ tokens: count, hiddenSize, intermediateSize, activation: "silu" },
      ...{ hiddenStates: states, gate, up, down, gradOutput: states },
      ...{ gradGate: gradient.buffer, accumulate: ["gradGate"] },
    });
  };
  // The second one needs more.
  const both = () =>
    together(backend, () => {
      backward(1);
      backward(tokens);
    });
  const before = await gradient.read();
  const held = backend.memory().liveBytes;
  let refused = 0;
  for (let left = 0; ; left += 256) {
    const rest = backend.alloc("i32", (limit - held - left) / 4, { zeroed: false });
    let error: unknown;
    try {
      both();
    } catch (thrown) {
      error = thrown;
    }
    rest.dispose();
    if (error === undefined) break;
    expect(error).toHaveProperty("code", "OUT_OF_MEMORY");
    expect(await gradient.read()).toEqual(before);
    refused++;
  }
  expect(refused).toBeGreaterThan(2);
  expect(await gradient.read()).not.toEqual(before);

  const alone = await timeKernels(backend, () => backward(tokens));
  const reserved = await timeKernels(backend, () => together(backend, () => backward(tokens)));
  expect(reserved.map(({ kernel }) => kernel)).toEqual(alone.map(({ kernel }) => kernel));
  await backend.dispose();
});
