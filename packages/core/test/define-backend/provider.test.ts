import {
  adoptHandle,
  type Backend,
  bufferHandle,
  defineBackend,
  forceLoss,
  type OpName,
  opNames,
  together,
} from "@flash-moe/core";
import { describe, expect, it, vi } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { type FakeHandle, fake, fakeCapabilities } from "../helpers/fake-backend.js";

describe("what a backend says of itself", () => {
  it("is what its provider said, and the ops are those that are there", () => {
    const { backend } = fake({ name: "abacus", device: "wood", ops: ["linear", "adamw"] });
    expect(backend).toMatchObject({ specVersion: 1, name: "abacus", device: "wood", disposed: false });
    expect(backend.capabilities).toMatchObject(fakeCapabilities);
    expect([...backend.capabilities.ops]).toEqual(["linear", "adamw"]);
    expect(Object.isFrozen(backend.capabilities)).toBe(true);
    expect(Object.keys(backend.ops)).toEqual(opNames);
  });

  const description = { name: "x", device: "y", memoryLimitBytes: null, capabilities: fakeCapabilities };
  const set: ReadonlySet<never> = new Set();
  it.each<[string, object, string]>([
    ["no name", { name: "" }, "name is ; takes a name"],
    ["no device", { device: undefined }, "device is undefined"],
    ["a limit that is none", { memoryLimitBytes: Number.NaN }, "memoryLimitBytes is NaN"],
    ["a limit below zero", { memoryLimitBytes: -1 }, "memoryLimitBytes is -1"],
    ["no capabilities", { capabilities: undefined }, "capabilities is undefined"],
    ["no dtypes", { capabilities: { ...fakeCapabilities, dtypes: undefined } }, "dtypes.f32 is undefined"],
    [
      "one dtype left out",
      { capabilities: { ...fakeCapabilities, dtypes: { f32: set, f16: set } } },
      "capabilities.dtypes.bf16 is undefined; takes a Set",
    ],
    [
      "an array for a set",
      { capabilities: { ...fakeCapabilities, dtypes: { f32: ["storage"], f16: set, bf16: set } } },
      "capabilities.dtypes.f32 is Array; takes a Set",
    ],
    [
      "too few keys",
      { capabilities: { ...fakeCapabilities, maxKeysPerAxis: 1024 } },
      "maxKeysPerAxis is 1024; takes at least 4096",
    ],
    [
      "no buffer size",
      { capabilities: { ...fakeCapabilities, maxBufferBytes: undefined } },
      "maxBufferBytes is undefined",
    ],
    [
      "a missing promise",
      { capabilities: { ...fakeCapabilities, deterministic: undefined } },
      "deterministic is undefined; takes true or false",
    ],
    [
      "another intermediate",
      { capabilities: { ...fakeCapabilities, mlpIntermediate: "f16" } },
      "mlpIntermediate is f16; takes f32 or storage",
    ],
    [
      "maxOperandBytes",
      { capabilities: { ...fakeCapabilities, maxOperandBytes: 0 } },
      "maxOperandBytes is 0; takes a number of bytes, or nothing",
    ],
    [
      "timestamps",
      { capabilities: { ...fakeCapabilities, timestamps: 1 } },
      "timestamps is 1; takes true or false",
    ],
  ])("must be sound: %s", (_, change, message) => {
    expectThrow(
      () => defineBackend({ ...description, ...change } as never, () => fake().implementation),
      "INVALID_ARGUMENT",
      `defineBackend: `,
      message,
    );
  });

  it.each<[string, unknown, string]>([
    ["nothing", undefined, "implementation is undefined"],
    [
      "a method left out",
      { ...fake().implementation, copy: undefined },
      "copy is undefined; takes a function",
    ],
    ["no ops", { ...fake().implementation, ops: undefined }, "ops is undefined"],
    [
      "a misspelt op",
      { ...fake().implementation, ops: { linaer: () => {} } },
      "an op is linaer; takes one of linear",
    ],
    ["an op that is no function", { ...fake().implementation, ops: { linear: 1 } }, "ops.linear is 1"],
  ])("must be backed by an implementation: %s", (_, implementation, message) => {
    expectThrow(
      () => defineBackend(description, () => implementation as never),
      "INVALID_ARGUMENT",
      "defineBackend: ",
      message,
    );
  });

  it("may implement its ops with methods that use `this`", () => {
    class Ops {
      ran: OpName[] = [];
      linear(): void {
        this.ran.push("linear");
      }
    }
    const ops = new Ops();
    const { backend } = fake({ override: { ops } });
    expect([...backend.capabilities.ops]).toEqual(["linear"]);
    const one = () => backend.alloc("f32", 1);
    backend.ops.linear({ rows: 1, inner: 1, columns: 1, a: one(), b: one(), output: one() });
    expect(ops.ran).toEqual(["linear"]);
  });
});

describe("an implementation in plain JavaScript", () => {
  it("is told that an op must not be async, whatever becomes of its promise", () => {
    const linear = async () => {
      throw new Error("after the call");
    };
    const { backend } = fake({ override: { ops: { linear: linear as () => void } } });
    const one = () => backend.alloc("f32", 1);
    expectThrow(
      () => backend.ops.linear({ rows: 1, inner: 1, columns: 1, a: one(), b: one(), output: one() }),
      "BACKEND_FAILED",
      "fake: linear returned a promise; it enqueues its work and returns nothing",
    );
  });

  it("is told that write, copy, reserve and alloc must not be either", async () => {
    const late = async () => {
      throw new Error("after the call");
    };
    const override = { write: late, copy: late, reserve: late } as object;
    const { backend } = fake({ override });
    const one = () => backend.alloc("f32", 1);
    const promise = "returned a promise; it enqueues its work and returns nothing";
    expectThrow(() => backend.write(one(), new Float32Array(1)), "BACKEND_FAILED", `fake: write ${promise}`);
    expectThrow(() => backend.copy(one(), one()), "BACKEND_FAILED", `fake: copy ${promise}`);
    const call = { rows: 1, inner: 1, columns: 1, a: one(), b: one(), output: one() };
    expectThrow(
      () => together(backend, () => backend.ops.linear(call)),
      "BACKEND_FAILED",
      `fake: reserve of linear ${promise}`,
    );
    const asynchronous = fake({ override: { alloc: late as never } });
    expectThrow(() => asynchronous.backend.alloc("f32", 1), "BACKEND_FAILED", "returned Promise");
    // A rejection that nobody has caught would fail this test.
    await new Promise((resolve) => setTimeout(resolve));
  });

  it("may return what it likes from an op but a promise", () => {
    const { backend } = fake({ override: { ops: { linear: (() => 7) as () => void } } });
    const one = () => backend.alloc("f32", 1);
    backend.ops.linear({ rows: 1, inner: 1, columns: 1, a: one(), b: one(), output: one() });
  });

  it.each<[string, unknown]>([
    ["undefined", undefined],
    ["Promise", Promise.resolve({ data: new Float32Array(1), label: "" })],
  ])("is told that alloc returned %s, and nothing is counted", (what, handle) => {
    const { backend } = fake({ override: { alloc: () => handle as FakeHandle } });
    expectThrow(
      () => backend.alloc("f32", 2, { label: "x" }),
      "BACKEND_FAILED",
      `fake: alloc of x (2 f32) returned ${what}; takes the handle, at once`,
    );
    expect(backend.memory().liveBytes).toBe(0);
  });
});

describe("a provider's own functions", () => {
  it("get at the handle of a buffer, with the errors of using it in an op", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("f32", 2, { label: "x" });
    expect(bufferHandle<FakeHandle>(backend, buffer).label).toBe("x");
    const foreign = fake().backend.alloc("f32", 1);
    expectThrow(() => bufferHandle(backend, foreign), "FOREIGN_BUFFER", "buffer");
    expectThrow(() => bufferHandle(backend, {} as never), "INVALID_ARGUMENT", "buffer is Object");
    const gone = backend.alloc("f32", 1);
    gone.dispose();
    expectThrow(() => bufferHandle(backend, gone), "DISPOSED", "buffer");
    await backend.dispose();
    expectThrow(() => bufferHandle(backend, buffer), "DISPOSED", "backend fake");
  });

  it("wrap memory that came from elsewhere: not counted, released instead of freed, once", async () => {
    const { backend, log } = fake();
    let released = 0;
    const handle: FakeHandle = { data: Float32Array.of(1, 2), label: "theirs" };
    const buffer = adoptHandle(backend, handle, "f32", 2, { label: "adopted", release: () => released++ });
    expect(buffer).toMatchObject({ backend, dtype: "f32", length: 2, label: "adopted" });
    expect(await backend.read(buffer)).toEqual(Float32Array.of(1, 2));
    expect(backend.memory().liveBytes).toBe(0);
    buffer.dispose();
    buffer.dispose();
    expect(released).toBe(1);
    expect(log).toEqual([]);
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("release it also after the backend is gone", async () => {
    const { backend } = fake();
    let released = 0;
    const handle: FakeHandle = { data: new Float32Array(1), label: "" };
    const buffer = adoptHandle(backend, handle, "f32", 1, { release: () => released++ });
    adoptHandle(backend, handle, "f32", 1).dispose();
    await backend.dispose();
    expect(released).toBe(0);
    buffer.dispose();
    expect(released).toBe(1);
    expectThrow(() => adoptHandle(backend, handle, "f32", 1), "DISPOSED");
  });

  it("check what they wrap", () => {
    const { backend } = fake({ capabilities: { maxBufferBytes: 4 } });
    const handle = { data: new Float32Array(1), label: "" };
    expectThrow(() => adoptHandle(backend, handle, "f64" as never, 1), "INVALID_ARGUMENT", "dtype is f64");
    expectThrow(() => adoptHandle(backend, handle, "f32", -1), "INVALID_ARGUMENT", "-1");
    expectThrow(() => adoptHandle(backend, handle, "f32", 2), "INVALID_ARGUMENT", "8 bytes");
    expectThrow(() => adoptHandle({} as Backend, handle, "f32", 1), "INVALID_ARGUMENT", "backend is Object");
  });
});

it("a backend of another copy of the package is known for one, and its buffers for foreign", async () => {
  const mine = fake();
  vi.resetModules();
  const copy = await import("@flash-moe/core");
  const other = copy.defineBackend(
    { name: "other", device: "d", memoryLimitBytes: null, capabilities: fakeCapabilities },
    (runtime) => ({
      ...mine.implementation,
      forceLoss: () => runtime.lose({ reason: "destroyed", message: "asked for" }),
    }),
  );
  const buffer = other.alloc("f32", 1);
  expect(bufferHandle<FakeHandle>(other, buffer).data).toHaveLength(1);
  await expectReject(mine.backend.read(buffer), "FOREIGN_BUFFER", "other", "fake");
  forceLoss(other);
  expect((await other.lost).reason).toBe("destroyed");
});
