import {
  type Backend,
  cloneTensor,
  FlashMoeError,
  type OpCalls,
  prepareWork,
  together,
} from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { type Fake, fake } from "../helpers/fake-backend.js";

function linearCall(backend: Backend): OpCalls["linear"] {
  const buffer = (label: string) => backend.alloc("f32", 1, { label });
  return { rows: 1, inner: 1, columns: 1, a: buffer("a"), b: buffer("b"), output: buffer("output") };
}

/** A fake that logs the reservation of ops too, and refuses those that are named. */
function reserving(refused: readonly string[] = []): Fake {
  const backend: Fake = fake({
    override: {
      reserve(op) {
        backend.log.push(`reserve ${op}`);
        if (refused.includes(op)) throw new FlashMoeError("OUT_OF_MEMORY", `no scratch for ${op}`);
      },
    },
  });
  return backend;
}

describe("together", () => {
  it("submits in order when the work has returned, after all was reserved, and frees last", () => {
    const { backend, log } = reserving();
    const call = linearCall(backend);
    log.length = 0;
    const result = together(backend, () => {
      backend.ops.linear(call);
      const passing = backend.alloc("f32", 1, { label: "passing" });
      backend.ops.linear({ ...call, a: passing });
      passing.dispose();
      expect(passing.disposed).toBe(true);
      log.push("work ends");
      return 5;
    });
    expect(result).toBe(5);
    const reserved = ["reserve linear", "reserve linear"];
    expect(log).toEqual(["alloc passing", "work ends", ...reserved, "linear", "linear", "free passing"]);
  });

  it("counts what is disposed of until it is freed", () => {
    const { backend } = fake({ memoryLimitBytes: 8 });
    const first = backend.alloc("f32", 1);
    together(backend, () => {
      first.dispose();
      backend.alloc("f32", 1);
      expectThrow(() => backend.alloc("f32", 1), "OUT_OF_MEMORY", "0 bytes are left");
    });
    expect(backend.memory().liveBytes).toBe(4);
  });

  it("keeps writes and copies in the order of calls, with the values that they were given", async () => {
    const { backend } = fake();
    const tensor = backend.upload([1], [1]);
    const values = Float32Array.of(2);
    const clones = together(backend, () => {
      const before = cloneTensor(tensor);
      backend.write(tensor.buffer, values);
      values[0] = 3;
      return [before, cloneTensor(tensor)];
    });
    expect(await Promise.all(clones.map(async (clone) => (await clone.read())[0]))).toEqual([1, 2]);
  });

  it.each([
    ["the work throws", () => reserving(), "INVALID_ARGUMENT"],
    ["an op cannot be reserved", () => reserving(["mlpBackward", "linear"]), "OUT_OF_MEMORY"],
  ] as const)("does nothing when %s", async (what, open, code) => {
    const { backend, calls } = open();
    const call = linearCall(backend);
    const target = backend.upload([1], [1]);
    const { liveBytes } = backend.memory();
    const work = (): void => {
      backend.write(target.buffer, Float32Array.of(2));
      backend.ops.linear(call);
      backend.alloc("f32", 1).dispose();
      if (what === "the work throws") backend.ops.linear({ ...call, rows: -1 });
    };
    expectThrow(() => together(backend, work), code, "");
    expect(calls).toEqual([]);
    expect(await target.read()).toEqual(Float32Array.of(1));
    expect(backend.memory().liveBytes).toBe(liveBytes);
    backend.ops.linear(call);
    expect(calls.length).toBe(1);
  });

  it("inside another is part of it", () => {
    const { backend, log } = fake();
    const call = linearCall(backend);
    log.length = 0;
    together(backend, () => {
      together(backend, () => backend.ops.linear(call));
      log.push("after the inner one");
    });
    expect(log).toEqual(["after the inner one", "linear"]);
  });

  it("submits nothing more once the device is lost", () => {
    const lost: Fake = fake({
      override: { copy: () => lost.runtime.lose({ reason: "unknown", message: "gone" }) },
    });
    const { backend, calls } = lost;
    const call = linearCall(backend);
    const work = (): void => {
      backend.copy(call.a, call.b);
      backend.ops.linear(call);
    };
    expectThrow(() => together(backend, work), "DEVICE_LOST", "gone");
    expect(calls).toEqual([]);
  });

  it("is made ready as other work is", async () => {
    const ready: string[] = [];
    const { backend, calls } = fake({
      override: {
        async prepare(op) {
          ready.push(op);
        },
      },
    });
    const call = linearCall(backend);
    await prepareWork(backend, () => together(backend, () => backend.ops.linear(call)));
    expect(ready).toEqual(["linear"]);
    expect(calls).toEqual([]);
    await backend.dispose();
    expectThrow(() => together(backend, () => {}), "DISPOSED", "disposed");
    await expectReject(backend.sync(), "DISPOSED", "disposed");
  });

  it("takes a backend", () => {
    expectThrow(() => together({} as never, () => {}), "INVALID_ARGUMENT", "backend is Object");
  });
});
