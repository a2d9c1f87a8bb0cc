import { type Backend, FlashMoeError, forceLoss } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { CallingThread } from "../src/threads/calling-thread.js";
import { planThreads, type ThreadEnvironment } from "../src/threads/plan-threads.js";
import { StepQueue } from "../src/threads/step-queue.js";

let backend: Backend | undefined;
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  await backend?.dispose().catch(() => {});
  backend = undefined;
});

async function open(threads = 2): Promise<Backend> {
  backend = await wasm.open({ threads });
  return backend;
}

/** Nothing is done on the calling thread. */
function queueEverything(): void {
  vi.spyOn(CallingThread.prototype, "takes").mockReturnValue(false);
}

/** Work of some hundred milliseconds; what it leaves in its output. */
function enqueueLong(target: Backend, size = 1024): { read(): Promise<number> } {
  const a = target.upload(new Float32Array(size * size).fill(1), [size, size]).buffer;
  const output = target.zeros([size, size]);
  const call = { rows: size, inner: size, columns: size, a, b: a, output: output.buffer };
  target.ops.linear(call);
  for (let n = 1; n < 4; n++) target.ops.linear({ ...call, accumulate: ["output"] });
  return { read: async () => (await output.read())[size * size - 1] };
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => "nothing",
    (thrown: unknown) => thrown,
  );
  return FlashMoeError.is(error) ? error.code : String(error);
}

interface NodeWorker {
  terminate(): Promise<number>;
}

/** Workers of backends that are opened from now on. */
function watchWorkers(): NodeWorker[] {
  const module = process.getBuiltinModule("node:worker_threads") as unknown as {
    Worker: new (...args: unknown[]) => NodeWorker;
  };
  const { Worker } = module;
  const workers: NodeWorker[] = [];
  vi.spyOn(module, "Worker").mockImplementation(function make(...args: unknown[]) {
    const worker = new Worker(...args);
    workers.push(worker);
    return worker;
  } as never);
  return workers;
}

it("says how many threads there are, and takes no number that is none", async () => {
  expect((await open(3)).device).toContain("SIMD, 3 threads");
  expect(await wasm.probe({ threads: 3 })).toHaveProperty("device", backend!.device);
  for (const threads of [0, -1, 1.5, 65, Number.NaN, "2"]) {
    const error = await wasm.open({ threads: threads as number }).catch((thrown: unknown) => thrown);
    expect(error).toHaveProperty("code", "INVALID_ARGUMENT");
    expect(String(error)).toContain(
      `threads is ${typeof threads === "string" ? `"${threads}"` : threads}; takes a whole number from 1 to 64`,
    );
  }
});

it("takes a thread a core, at most eight, and one where memory cannot be shared", () => {
  const node = (availableParallelism: number): ThreadEnvironment => ({
    SharedArrayBuffer,
    setImmediate,
    process: { getBuiltinModule: () => ({ availableParallelism: () => availableParallelism }) },
  });
  expect(planThreads(undefined, node(4))).toEqual({ threads: 4, workers: 3 });
  expect(planThreads(undefined, node(64))).toEqual({ threads: 8, workers: 7 });
  expect(planThreads(12, node(1))).toEqual({ threads: 12, workers: 11 });
  expect(planThreads(3, { ...node(4), setImmediate: undefined })).toEqual({ threads: 3, workers: 3 });
  const one = { threads: 1, workers: 0 };
  const page = { SharedArrayBuffer, crossOriginIsolated: false, navigator: { hardwareConcurrency: 4 } };
  expect(planThreads(undefined, page)).toEqual({ ...one, reason: "the page is not cross-origin isolated" });
  expect(planThreads(1, page)).toEqual(one);
  expect(planThreads(2, { SharedArrayBuffer })).toEqual({ ...one, reason: "this runtime has no workers" });
  expect(planThreads(2, {})).toEqual({ ...one, reason: "this runtime has no memory that threads share" });
  expect(planThreads(undefined, {})).toEqual(one);
});

it("goes on with one thread, and says why, where workers are refused", async () => {
  const module = process.getBuiltinModule("node:worker_threads");
  vi.spyOn(module, "Worker").mockImplementation(function refuse() {
    throw new Error("not here");
  } as never);
  const { device } = await open();
  expect(device).toContain("one thread (no worker threads: not here)");
  expect(await enqueueLong(backend!, 64).read()).toBe(4 * 64);
});

it("leaves the event loop its turns while long work runs", async () => {
  const long = enqueueLong(await open());
  let done = false;
  const result = long.read().finally(() => {
    done = true;
  });
  let turns = 0;
  while (!done) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    turns++;
  }
  expect(await result).toBe(4096);
  expect(turns).toBeGreaterThan(5);
});

it("has the calling thread help while somebody waits, and not before", async () => {
  const help = vi.spyOn(StepQueue.prototype, "help");
  await open();
  const long = enqueueLong(backend!);
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(help).not.toHaveBeenCalled();
  expect(await long.read()).toBe(4096);
  expect(help.mock.results.some(({ value }) => value === true)).toBe(true);
});

it("loses the backend when the calling thread traps in a task", async () => {
  await open();
  vi.spyOn(StepQueue.prototype, "help").mockImplementation(() => {
    throw new Error("unreachable");
  });
  expect(await codeOf(enqueueLong(backend!).read())).toBe("DEVICE_LOST");
  expect((await backend!.lost).message).toContain("unreachable");
});

it("gives small work turns too, however much of it there is", async () => {
  await open();
  const a = backend!.zeros([32, 32]).buffer;
  const output = backend!.zeros([32, 32]).buffer;
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  for (let n = 0; n < 3000; n++) {
    backend!.ops.linear({ rows: 32, inner: 32, columns: 32, a, b: a, output });
    await backend!.sync();
  }
  clearInterval(timer);
  expect(turns).toBeGreaterThan(5);
});

it("hands small work to workers that are awake, tiny work never, and wakes none for either", async () => {
  await open();
  const add = vi.spyOn(StepQueue.prototype, "add");
  const awake = vi.spyOn(StepQueue.prototype, "awake", "get");
  const handed: unknown[] = [];
  for (const workersAwake of [false, true]) {
    for (const size of [96, 32]) {
      const a = backend!.upload(new Float32Array(size * size).fill(1), [size, size]).buffer;
      const output = backend!.alloc("f32", size * size, { zeroed: false });
      awake.mockReturnValue(workersAwake);
      add.mockClear();
      backend!.ops.linear({ rows: size, inner: size, columns: size, a, b: a, output });
      if (add.mock.calls.length > 0) handed.push({ size, workersAwake });
      await backend!.sync();
      expect((await backend!.read(output))[0]).toBe(size);
    }
  }
  expect(handed).toEqual([{ size: 96, workersAwake: true }]);
});

it("lets workers sleep when nothing comes", async () => {
  const add = vi.spyOn(StepQueue.prototype, "add");
  expect(await enqueueLong(await open(), 128).read()).toBe(4 * 128);
  const queue = add.mock.contexts[0] as StepQueue;
  await vi.waitFor(() => expect(queue.awake).toBe(false), 5000);
});

it("keeps the order of ops, writes, copies and reads, more than the queue holds", async () => {
  queueEverything();
  await open(3);
  const value = backend!.zeros([1]);
  const one = backend!.upload([1], [1]).buffer;
  const copy = backend!.zeros([1]).buffer;
  const reads: Promise<number>[] = [];
  const add = { rows: 1, inner: 1, columns: 1, a: one, b: one, output: value.buffer };
  for (let n = 0; n < 4000; n++) {
    backend!.ops.linear({ ...add, accumulate: ["output"] });
    if (n % 100 === 0) reads.push(value.read().then((values) => values[0]));
    if (n === 2000) backend!.write(value.buffer, Float32Array.of(-1));
    if (n === 3000) backend!.copy(value.buffer, copy);
  }
  const after = (n: number): number => (n < 2000 ? n + 1 : n - 2001);
  expect(await Promise.all(reads)).toEqual(
    Array.from({ length: 40 }, (_, n) => (n === 20 ? 2001 : after(100 * n))),
  );
  expect((await value.read())[0]).toBe(after(3999));
  expect((await backend!.read(copy))[0]).toBe(after(3000));
});

it("lets what is written change after the call, and memory be used again while work goes on", async () => {
  queueEverything();
  await open();
  const results: Promise<ArrayLike<number>>[] = [];
  const data = new Float32Array(1000);
  for (let n = 0; n < 50; n++) {
    data.fill(n);
    const buffer = backend!.upload(data, [1000]);
    results.push(buffer.read());
    buffer.dispose();
    const zeros = backend!.zeros([1000]);
    results.push(zeros.read());
    zeros.dispose();
  }
  for (const [n, values] of (await Promise.all(results)).entries()) {
    const expected = n % 2 === 0 ? n / 2 : 0;
    expect(Array.from(values).every((value) => value === expected)).toBe(true);
  }
  expect(backend!.memory().liveBytes).toBe(0);
});

it.each([0, 1])("is lost when worker %i ends, and nothing hangs", async (victim) => {
  const workers = watchWorkers();
  await open(3);
  expect(workers).toHaveLength(2);
  const long = enqueueLong(backend!);
  const reading = codeOf(long.read());
  const syncing = codeOf(backend!.sync());
  await workers[victim].terminate();
  expect(await reading).toBe("DEVICE_LOST");
  expect(await syncing).toBe("DEVICE_LOST");
  expect((await backend!.lost).message).toContain("a worker thread has ended");
  expect(await codeOf(backend!.sync())).toBe("DEVICE_LOST");
  await backend!.dispose();
});

it("is lost when an idle worker ends", async () => {
  const workers = watchWorkers();
  await open();
  await workers[0].terminate();
  expect((await backend!.lost).reason).toBe("unknown");
  expect(() => backend!.zeros([1])).toThrow("lost its device");
});

it("is lost when a worker throws, and tells what", async () => {
  queueEverything();
  await open();
  // Longer than the memory: the kernel traps.
  const { prototype } = Float64Array;
  const { set } = prototype;
  vi.spyOn(prototype, "set").mockImplementation(function damage(this: Float64Array, args, offset) {
    set.call(this, args, offset);
    this[offset! + 1] = 2 ** 32 - 16;
  });
  const buffer = backend!.zeros([64]).buffer;
  const other = backend!.alloc("f32", 64);
  backend!.copy(buffer, other);
  expect(await codeOf(backend!.sync())).toBe("DEVICE_LOST");
  expect((await backend!.lost).message).toContain("memory access out of bounds");
});

it("loses nothing but itself when the loss is asked for amid work", async () => {
  const other = await wasm.open({ threads: 2 });
  await open();
  const reading = codeOf(enqueueLong(backend!).read());
  forceLoss(backend!);
  expect(await reading).toBe("DEVICE_LOST");
  expect(await enqueueLong(other, 128).read()).toBe(4 * 128);
  await other.dispose();
});

it("ends what is queued before it is disposed", async () => {
  await open();
  const reading = enqueueLong(backend!).read();
  await backend!.dispose();
  expect(await reading).toBe(4096);
  expect(backend!.memory()).toMatchObject({ liveBytes: 0, scratchBytes: 0 });
});

it("says so when the engine has no room for a copy, on either thread", async () => {
  queueEverything();
  await open();
  const long = backend!.alloc("f32", 2 ** 20, { zeroed: false });
  const slice = vi.spyOn(Uint8Array.prototype, "slice").mockImplementation(() => {
    throw new RangeError("no");
  });
  backend!.zeros([2 ** 20]);
  backend!.copy(long, backend!.alloc("f32", 2 ** 20, { zeroed: false }));
  const write = (async () => backend!.write(long, new Float32Array(2 ** 20)))();
  expect(await codeOf(write)).toBe("OUT_OF_MEMORY");
  slice.mockRestore();
  await backend!.sync();
});
