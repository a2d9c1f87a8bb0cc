import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  type Backend,
  FlashMoeError,
  forceLoss,
  type OpCalls,
  type Progress,
  prepareWork,
  timeKernels,
} from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { deferred, fake } from "../helpers/fake-backend.js";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** A legal call of linear. */
function linearCall(backend: Backend): OpCalls["linear"] {
  const one = () => backend.alloc("f32", 1);
  return { rows: 1, inner: 1, columns: 1, a: one(), b: one(), output: one() };
}

/** Everything a backend can be asked that must fail once it is gone. */
function everyUse(backend: Backend, call: OpCalls["linear"]): [string, () => unknown][] {
  return [
    ["alloc", () => backend.alloc("f32", 1)],
    ["write", () => backend.write(call.a, new Float32Array(1))],
    ["copy", () => backend.copy(call.a, call.b)],
    ["upload", () => backend.upload([1], [1])],
    ["zeros", () => backend.zeros([1])],
    ["linear", () => backend.ops.linear(call)],
    ["read", () => backend.read(call.a)],
    ["prepare", () => backend.prepare("linear", call)],
    ["sync", () => backend.sync()],
  ];
}

describe("an error that the device reports late", () => {
  const late = new FlashMoeError("INVALID_ARGUMENT", "experts: ids has 9, outside [0, 4)");

  it.each(["read", "sync", "prepare", "dispose"] as const)("rejects the next %s, once", async (what) => {
    const { backend, runtime } = fake();
    const call = linearCall(backend);
    backend.ops.linear(call);
    runtime.fail(late);
    backend.ops.linear(call);
    backend.write(call.a, new Float32Array(1));
    const awaits = {
      read: () => backend.read(call.a),
      sync: () => backend.sync(),
      prepare: () => backend.prepare("linear", call),
      dispose: () => backend.dispose(),
    };
    expect(await awaits[what]().catch((error: unknown) => error)).toBe(late);
    await awaits[what]();
  });

  it("is the first of several, and wins over what the await itself says", async () => {
    const { backend, runtime } = fake({
      override: { sync: () => Promise.reject(new Error("because of it")) },
    });
    runtime.fail(late);
    runtime.fail(new FlashMoeError("COMPILE_FAILED", "second"));
    expect(await backend.sync().catch((error: unknown) => error)).toBe(late);
    await expectReject(backend.sync(), "BACKEND_FAILED", "fake: sync: because of it");
  });

  it("rejects an await that is under way", async () => {
    const done = deferred<void>();
    const { backend, runtime } = fake({ override: { sync: () => done.promise } });
    const synced = backend.sync();
    runtime.fail(late);
    done.resolve();
    expect(await synced.catch((error: unknown) => error)).toBe(late);
  });

  it("is delivered to one of two awaits", async () => {
    const { backend, runtime } = fake();
    runtime.fail(late);
    const results = await Promise.allSettled([backend.sync(), backend.sync()]);
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });

  it("gets a code if it had none", async () => {
    const { backend, runtime } = fake();
    const cause = new Error("validation failed");
    runtime.fail(cause as never);
    const error = await expectReject(backend.sync(), "BACKEND_FAILED", "fake: validation failed");
    expect(error.cause).toBe(cause);
  });
});

describe("losing the device", () => {
  it("settles lost once, and everything later is DEVICE_LOST", async () => {
    const { backend, runtime, calls, log } = fake();
    const call = linearCall(backend);
    const before = log.length;
    runtime.lose({ reason: "unknown", message: "unplugged" });
    runtime.lose({ reason: "destroyed", message: "a second time" });
    expect(await backend.lost).toEqual({ reason: "unknown", message: "unplugged" });
    for (const [name, use] of everyUse(backend, call)) {
      const promise = (async () => use())();
      await expectReject(promise, "DEVICE_LOST", "fake", "unknown", "unplugged").catch((error: unknown) => {
        throw new Error(`${name} of a lost backend`, { cause: error });
      });
    }
    expect(calls).toEqual([]);
    expect(log.length).toBe(before);
  });

  it("rejects reads that are under way, even if the device never answers them", async () => {
    const { backend, runtime } = fake({ override: { read: () => new Promise(() => {}) } });
    const reads = [backend.read(backend.alloc("f32", 1)), backend.read(backend.alloc("f32", 1))];
    runtime.lose({ reason: "unknown", message: "unplugged" });
    for (const read of reads) await expectReject(read, "DEVICE_LOST", "unplugged");
  });

  it("invents no contents: data that arrives with the loss is not given out", async () => {
    const data = deferred<Float32Array>();
    const { backend, runtime } = fake({ override: { read: () => data.promise } });
    const read = backend.read(backend.alloc("f32", 1));
    data.resolve(new Float32Array(1));
    runtime.lose({ reason: "unknown", message: "unplugged" });
    await expectReject(read, "DEVICE_LOST");
  });

  it("is what an await says, whatever the device gave as its reason, and wins over a late error", async () => {
    const { backend, runtime } = fake({
      override: {
        sync: async () => {
          runtime.lose({ reason: "unknown", message: "unplugged" });
          throw new Error("mapping failed");
        },
      },
    });
    runtime.fail(new FlashMoeError("COMPILE_FAILED", "earlier"));
    await expectReject(backend.sync(), "DEVICE_LOST", "unplugged");
  });

  it("leaves disposing buffers and the backend harmless", async () => {
    const { backend, runtime, log } = fake();
    const buffer = backend.alloc("f32", 4);
    runtime.lose({ reason: "unknown", message: "unplugged" });
    buffer.dispose();
    expect(buffer.disposed).toBe(true);
    await backend.dispose();
    await backend.dispose();
    expect(log).toEqual(["alloc ", "free ", "dispose"]);
    expectThrow(() => backend.alloc("f32", 1), "DISPOSED");
  });

  it("can be forced where the backend has a way to", async () => {
    const { backend } = fake();
    expect(backend.capabilities.forcedLoss).toBe(true);
    forceLoss(backend);
    expect((await backend.lost).reason).toBe("destroyed");
    expectThrow(() => forceLoss(backend), "DEVICE_LOST");

    const cannot = fake({ override: { forceLoss: undefined } }).backend;
    expect(cannot.capabilities.forcedLoss).toBe(false);
    expectThrow(() => forceLoss(cannot), "UNSUPPORTED", "fake");
    expectThrow(() => forceLoss({} as Backend), "INVALID_ARGUMENT", "backend is Object");
    expectThrow(() => forceLoss(undefined as never), "INVALID_ARGUMENT", "backend is undefined");
  });

  it("does not hold the results of reads in memory until then", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("f32", 1000);
    // In a function of its own, so that nothing on the stack holds the results.
    const readMany = async () => {
      const results: WeakRef<object>[] = [];
      for (let i = 0; i < 10; i++) results.push(new WeakRef(await backend.read(buffer)));
      return results;
    };
    const results = await readMany();
    await new Promise((resolve) => setTimeout(resolve, 1));
    collectGarbage();
    expect(results.filter((result) => result.deref() !== undefined)).toEqual([]);
  });
});

describe("disposing a backend", () => {
  it("waits for submitted work, frees everything once, and makes every use DISPOSED", async () => {
    const work = deferred<void>();
    const { backend, log } = fake({ override: { sync: () => work.promise } });
    const call = linearCall(backend);
    const before = log.length;
    expect(backend.disposed).toBe(false);
    const disposal = backend.dispose();
    expect(backend.disposed).toBe(true);
    const again = backend[Symbol.asyncDispose]();
    await Promise.resolve();
    expect(log.slice(before), "not before its work is done").toEqual([]);
    work.resolve();
    await Promise.all([disposal, again]);
    await backend.dispose();
    expect(log.slice(before)).toEqual(["dispose"]);
    for (const [, use] of everyUse(backend, call)) {
      await expectReject((async () => use())(), "DISPOSED", "backend fake has been disposed");
    }
    expectThrow(() => forceLoss(backend), "DISPOSED");
  });

  it("waits for reads that are under way, and they get their data", async () => {
    const data = deferred<Float32Array>();
    const { backend, log } = fake({ override: { read: () => data.promise } });
    const read = backend.read(backend.alloc("f32", 2));
    const disposal = backend.dispose();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(log).not.toContain("dispose");
    data.resolve(Float32Array.of(1, 2));
    expect(await read).toEqual(Float32Array.of(1, 2));
    await disposal;
    expect(log).toContain("dispose");
  });

  it("counts no bytes afterwards; its buffers can still be disposed, and nothing is freed twice", async () => {
    const { backend, log } = fake();
    const buffer = backend.alloc("f32", 4);
    await backend.dispose();
    expect(backend.memory()).toMatchObject({ liveBytes: 0, scratchBytes: 0, peakBytes: 16 });
    buffer.dispose();
    expect(buffer.disposed).toBe(true);
    expect(log).toEqual(["alloc ", "sync", "dispose"]);
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("disposes the device even if waiting failed, and says the failure once", async () => {
    const { backend, log } = fake({ override: { sync: () => Promise.reject(new Error("hung")) } });
    await expectReject(backend.dispose(), "BACKEND_FAILED", "fake: dispose: hung");
    expect(log).toEqual(["dispose"]);
    await backend.dispose();
  });

  it("wraps what the implementation's dispose throws", async () => {
    const { backend } = fake({ override: { dispose: () => Promise.reject(new Error("busy")) } });
    await expectReject(backend.dispose(), "BACKEND_FAILED", "fake: dispose: busy");
  });

  it("is no loss, even if the device reports its destruction", async () => {
    const { backend, implementation, runtime } = fake({
      override: {
        dispose: async () => runtime.lose({ reason: "destroyed", message: "device.destroy()" }),
      },
    });
    let lost = false;
    backend.lost.then(() => {
      lost = true;
    });
    await backend.dispose();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(implementation.dispose).toBeDefined();
    expect(lost).toBe(false);
  });

  it("ends when the device is lost meanwhile", async () => {
    const { backend, runtime, log } = fake({ override: { sync: () => new Promise(() => {}) } });
    const disposal = backend.dispose();
    await Promise.resolve();
    runtime.lose({ reason: "unknown", message: "unplugged" });
    await disposal;
    expect(log).toEqual(["dispose"]);
  });
});

describe("order", () => {
  it("a read is submitted when it is called, before what is called next", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("i32", 1);
    backend.write(buffer, Int32Array.of(1));
    const first = backend.read(buffer);
    backend.write(buffer, Int32Array.of(2));
    const second = backend.read(buffer);
    expect([(await first)[0], (await second)[0]]).toEqual([1, 2]);
  });

  it("prepare compiles and does not run", async () => {
    const prepared: unknown[] = [];
    const { backend, calls } = fake({
      override: {
        prepare: async (op, call) => {
          prepared.push([op, call]);
        },
      },
    });
    const call = linearCall(backend);
    await backend.prepare("linear", call);
    expect(prepared).toMatchObject([["linear", { rows: 1, a: { data: new Float32Array(1) } }]]);
    expect(calls).toEqual([]);
    await fake()
      .backend.prepare("linear", linearCall(fake().backend))
      .catch(() => {});
  });

  it("prepareWork makes ready what the work calls, and runs none of it", async () => {
    const prepared: string[] = [];
    const { backend, calls } = fake({
      override: {
        prepare: async (op) => {
          prepared.push(op);
        },
      },
    });
    const progress: Progress[] = [];
    const twice = () => {
      const call = linearCall(backend);
      backend.ops.linear(call);
      backend.ops.linear(call);
    };
    await prepareWork(backend, twice, { onProgress: (step) => progress.push(step) });
    expect(prepared).toEqual(["linear", "linear"]);
    expect(calls).toEqual([]);
    expect(progress).toEqual([
      { phase: "compile", name: "linear", loaded: 1, total: 2 },
      { phase: "compile", name: "linear", loaded: 2, total: 2 },
    ]);
    backend.ops.linear(linearCall(backend));
    expect(calls).toHaveLength(1);
  });

  it("prepareWork lets through what the work throws, and then runs calls again", async () => {
    const { backend, calls } = fake({ override: { prepare: async () => {} } });
    const bad = () => backend.ops.linear({ ...linearCall(backend), rows: -1 });
    await expectReject(prepareWork(backend, bad), "INVALID_ARGUMENT", "rows is -1");
    backend.ops.linear(linearCall(backend));
    expect(calls).toHaveLength(1);
  });

  it("prepareWork rejects with what failed to compile, and with the reason of a signal", async () => {
    const { backend } = fake({ override: { prepare: () => Promise.reject(new Error("line 3")) } });
    const work = () => {
      backend.ops.linear(linearCall(backend));
      backend.ops.linear(linearCall(backend));
    };
    await expectReject(prepareWork(backend, work), "BACKEND_FAILED", "fake: prepare: line 3");
    const aborting = fake({ override: { prepare: async () => {} } }).backend;
    const controller = new AbortController();
    let done = 0;
    const onProgress = () => {
      done += 1;
      controller.abort(new Error("enough"));
    };
    const three = () => {
      for (let n = 0; n < 3; n++) aborting.ops.linear(linearCall(aborting));
    };
    const { signal } = controller;
    await expect(prepareWork(aborting, three, { signal, onProgress })).rejects.toThrow("enough");
    expect(done).toBe(1);
    await expect(prepareWork(aborting, three, { signal })).rejects.toThrow("enough");
  });

  it("prepareWork does not call the work where there is nothing to compile", async () => {
    const { backend } = fake();
    await prepareWork(backend, () => expect.unreachable());
  });

  it("timeKernels runs the work and hands on what the device says", async () => {
    const times = [{ op: "linear", kernel: "k", nanoseconds: 7 }] as const;
    const { backend, calls } = fake({
      capabilities: { timestamps: true },
      override: {
        timeKernels: async (work) => {
          work();
          return [...times];
        },
      },
    });
    expect(await timeKernels(backend, () => backend.ops.linear(linearCall(backend)))).toEqual(times);
    expect(calls).toHaveLength(1);
    const failing = timeKernels(backend, () => {
      throw new RangeError("of the caller's");
    });
    await expect(failing).rejects.toThrow(RangeError);
    await expectReject(
      timeKernels(fake().backend, () => {}),
      "UNSUPPORTED",
      "fake on host memory cannot time its own work",
    );
  });

  it("prepare is nothing where there is nothing to compile, and wraps what fails", async () => {
    const nothing = fake().backend;
    await nothing.prepare("linear", linearCall(nothing));
    const broken = fake({ override: { prepare: () => Promise.reject(new Error("line 3")) } }).backend;
    await expectReject(
      broken.prepare("linear", linearCall(broken)),
      "BACKEND_FAILED",
      "fake: prepare: line 3",
    );
    await expectReject(
      broken.prepare("matmul" as never, {} as never),
      "UNSUPPORTED",
      "fake has no op matmul",
    );
  });
});
