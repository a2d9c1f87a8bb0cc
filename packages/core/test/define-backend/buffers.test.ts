import { type DType, dtypes, FlashMoeError, type TypedArray } from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectReject, expectThrow } from "../helpers/expect-error.js";
import { fake, fakeCapabilities } from "../helpers/fake-backend.js";

describe("alloc", () => {
  it.each(dtypes)("gives zeros of %s, and knows their dtype, length, bytes and owner", async (dtype) => {
    const { backend } = fake();
    const buffer = backend.alloc(dtype, 5, { label: "x" });
    const bytes = dtype === "f16" || dtype === "bf16" ? 10 : 20;
    expect(buffer).toMatchObject({
      backend,
      dtype,
      length: 5,
      byteLength: bytes,
      label: "x",
      disposed: false,
    });
    expect([...(await backend.read(buffer))]).toEqual([0, 0, 0, 0, 0]);
    expect(backend.memory().liveBytes).toBe(bytes);
  });

  it("asks for zeros only where they are wanted", async () => {
    const { backend } = fake();
    expect([...(await backend.read(backend.alloc("i32", 2, { zeroed: false })))]).toEqual([77, 77]);
    expect([...(await backend.read(backend.alloc("i32", 2, { zeroed: true })))]).toEqual([0, 0]);
    expect(backend.alloc("f32", 0).byteLength).toBe(0);
  });

  it.each([[-1], [1.5], [Number.NaN], [Infinity], [2 ** 53], ["3" as never], [undefined as never]])(
    "refuses %s elements",
    (length) => {
      const { backend, log } = fake();
      expectThrow(() => backend.alloc("f32", length), "INVALID_ARGUMENT", "length", String(length));
      expectThrow(
        () => backend.alloc("f32", length, { label: "keys" }),
        "INVALID_ARGUMENT",
        `length of keys is ${length}; takes an integer from 0`,
      );
      expect(log).toEqual([]);
    },
  );

  it("refuses a dtype that there is not, or that the device cannot store", () => {
    const { backend } = fake({ capabilities: { dtypes: { ...fakeCapabilities.dtypes, bf16: new Set() } } });
    expectThrow(
      () => backend.alloc("f64" as DType, 1),
      "INVALID_ARGUMENT",
      "dtype is f64; takes one of f32, f16, bf16, i32",
    );
    expectThrow(() => backend.alloc("bf16", 1), "UNSUPPORTED", "fake cannot store bf16");
    expectThrow(() => backend.zeros([1], "bf16"), "UNSUPPORTED", "bf16");
    expectThrow(() => backend.upload([1], [1], "bf16"), "UNSUPPORTED", "bf16");
  });

  it("refuses more bytes than one buffer may have", () => {
    const { backend } = fake({ capabilities: { maxBufferBytes: 16 } });
    backend.alloc("f32", 4);
    backend.alloc("f16", 8);
    expectThrow(() => backend.alloc("f32", 5), "INVALID_ARGUMENT", "5 f32 (20 bytes)", "up to 16 bytes");
  });

  it("refuses what does not fit the budget, with the bytes asked for and the bytes left", () => {
    const { backend, log } = fake({ memoryLimitBytes: 100 });
    const first = backend.alloc("f32", 20);
    expectThrow(
      () => backend.alloc("f16", 11, { label: "table" }),
      "OUT_OF_MEMORY",
      "table (11 f16) needs 22 bytes; 20 bytes are left of the budget of 100",
    );
    expectThrow(() => backend.alloc("f32", 6), "OUT_OF_MEMORY", "a buffer of 6 f32 needs 24 bytes");
    expect(log).toEqual(["alloc "]);
    first.dispose();
    backend.alloc("f32", 25);
    expect(backend.memory()).toEqual({ liveBytes: 100, scratchBytes: 0, peakBytes: 100, limitBytes: 100 });
  });

  it("counts nothing when the device refuses, and says why", () => {
    const full = new FlashMoeError("OUT_OF_MEMORY", "the device is full");
    for (const [thrown, code] of [
      [full, "OUT_OF_MEMORY"],
      [new RangeError("no such size"), "BACKEND_FAILED"],
    ] as const) {
      const { backend } = fake({
        override: {
          alloc: () => {
            throw thrown;
          },
        },
      });
      const error = expectThrow(() => backend.alloc("f32", 4), code, thrown.message);
      expect(error === thrown || error.cause === thrown).toBe(true);
      expect(backend.memory().liveBytes).toBe(0);
    }
  });
});

describe("dispose of a buffer", () => {
  it("frees it once, and its bytes return", () => {
    const { backend, log } = fake();
    const buffer = backend.alloc("f32", 3, { label: "x" });
    buffer.dispose();
    buffer.dispose();
    buffer[Symbol.dispose]();
    expect(buffer.disposed).toBe(true);
    expect(log).toEqual(["alloc x", "free x"]);
    expect(backend.memory()).toMatchObject({ liveBytes: 0, peakBytes: 12 });
  });

  it("makes every use of it DISPOSED, by name", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("f32", 3, { label: "x" });
    const other = backend.alloc("f32", 3);
    buffer.dispose();
    expectThrow(() => backend.write(buffer, new Float32Array(3)), "DISPOSED", "target (x)");
    await expectReject(backend.read(buffer), "DISPOSED", "source (x)");
    expectThrow(() => backend.copy(buffer, other), "DISPOSED", "source (x)");
    expectThrow(() => backend.copy(other, buffer), "DISPOSED", "target (x)");
  });
});

describe("write and read", () => {
  it("move elements from and to any place", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("i32", 5);
    const data = Int32Array.of(1, 2, 3);
    backend.write(buffer, data, 2);
    data.fill(9);
    backend.write(buffer, Int32Array.of(7));
    backend.write(buffer, new Int32Array(0), 5);
    expect(await backend.read(buffer)).toEqual(Int32Array.of(7, 0, 1, 2, 3));
    expect(await backend.read(buffer, 3)).toEqual(Int32Array.of(2, 3));
    expect(await backend.read(buffer, 1, 2)).toEqual(Int32Array.of(0, 1));
    expect(await backend.read(buffer, 5)).toEqual(new Int32Array(0));
  });

  it.each<[DType, ArrayBufferView | number[] | undefined, string]>([
    ["f32", new Float64Array(2), "Float64Array; a f32 buffer takes Float32Array"],
    ["f32", new Uint16Array(2), "Uint16Array; a f32 buffer takes Float32Array"],
    ["f16", new Float32Array(2), "Float32Array; a f16 buffer takes Uint16Array"],
    ["bf16", new Int16Array(2), "Int16Array; a bf16 buffer takes Uint16Array"],
    ["i32", new Uint32Array(2), "Uint32Array; a i32 buffer takes Int32Array"],
    ["i32", [1, 2], "Array; a i32 buffer takes Int32Array"],
    ["f32", undefined, "undefined; a f32 buffer takes Float32Array"],
    ["f32", new DataView(new ArrayBuffer(8)), "DataView; a f32 buffer takes Float32Array"],
  ])("a %s buffer refuses other host arrays (%#)", (dtype, data, message) => {
    const { backend } = fake();
    expectThrow(
      () => backend.write(backend.alloc(dtype, 2), data as never),
      "INVALID_ARGUMENT",
      `data is ${message}`,
    );
  });

  it.each([
    [3, 3],
    [-1, 2],
    [0.5, 2],
    [Number.NaN, 2],
    [6, 0],
    [2 ** 53, 1],
  ])("refuse what lies outside (offset %d, %d elements)", async (offset, length) => {
    const { backend } = fake();
    const buffer = backend.alloc("f32", 5);
    const range = `of ${length} elements at offset ${offset}; the buffer has 5`;
    expectThrow(
      () => backend.write(buffer, new Float32Array(length), offset),
      "INVALID_ARGUMENT",
      `write ${range}`,
    );
    await expectReject(backend.read(buffer, offset, length), "INVALID_ARGUMENT", `read ${range}`);
  });

  it("refuse a length that is none, and an offset past the end", async () => {
    const { backend } = fake();
    const buffer = backend.alloc("f32", 5);
    await expectReject(backend.read(buffer, 0, -1), "INVALID_ARGUMENT", "-1");
    await expectReject(backend.read(buffer, 0, 1.5), "INVALID_ARGUMENT", "1.5");
    await expectReject(backend.read(buffer, 7), "INVALID_ARGUMENT", "offset 7; the buffer has 5");
  });

  it("refuse buffers of another backend, and what is no buffer", async () => {
    const { backend } = fake();
    const foreign = fake({ name: "elsewhere" }).backend.alloc("f32", 1);
    const own = backend.alloc("f32", 1);
    expectThrow(
      () => backend.write(foreign, new Float32Array(1)),
      "FOREIGN_BUFFER",
      "target",
      "elsewhere",
      "fake",
    );
    await expectReject(backend.read(foreign), "FOREIGN_BUFFER", "source", "elsewhere");
    expectThrow(() => backend.copy(foreign, own), "FOREIGN_BUFFER", "source");
    expectThrow(() => backend.copy(own, foreign), "FOREIGN_BUFFER", "target");
    expectThrow(
      () => backend.write(undefined as never, new Float32Array(1)),
      "INVALID_ARGUMENT",
      "target is undefined",
    );
    await expectReject(backend.read(backend.zeros([1]) as never), "INVALID_ARGUMENT", "source is Tensor");
  });
});

describe("copy", () => {
  it("copies all of a buffer", async () => {
    const { backend } = fake();
    const source = backend.upload([1, 2], [2], "bf16").buffer;
    const target = backend.alloc("bf16", 2);
    backend.copy(source, target);
    expect(await backend.read(target)).toEqual(await backend.read(source));
    backend.copy(backend.alloc("f32", 0), backend.alloc("f32", 0));
  });

  it("refuses another dtype, another length, and the same buffer", () => {
    const { backend } = fake();
    const source = backend.alloc("f16", 2);
    expectThrow(() => backend.copy(source, backend.alloc("bf16", 2)), "INVALID_ARGUMENT", "2 f16 to 2 bf16");
    expectThrow(() => backend.copy(source, backend.alloc("f16", 3)), "INVALID_ARGUMENT", "2 f16 to 3 f16");
    expectThrow(() => backend.copy(source, source), "INVALID_ARGUMENT", "of the same buffer");
    const empty = backend.alloc("f16", 0);
    expectThrow(() => backend.copy(empty, empty), "INVALID_ARGUMENT", "of the same buffer");
  });
});

describe("upload and zeros", () => {
  it.each<[string, ArrayLike<number>, DType | undefined, DType, number[]]>([
    ["numbers are f32", [1, 2.5], undefined, "f32", [1, 2.5]],
    ["an Int32Array is i32", Int32Array.of(1, 2), undefined, "i32", [1, 2]],
    ["a Float64Array is rounded", Float64Array.of(0.1, 1), undefined, "f32", [Math.fround(0.1), 1]],
    ["numbers as f16", [0.1, 1], "f16", "f16", [0.0999755859375, 1]],
    ["f32 as bf16", Float32Array.of(0.1, 1), "bf16", "bf16", [0.10009765625, 1]],
    ["integers as i32", [3, -4], "i32", "i32", [3, -4]],
    ["an Int32Array as f32", Int32Array.of(3, -4), "f32", "f32", [3, -4]],
    ["raw bits as f16", Uint16Array.of(0x3c00, 0xc000), "f16", "f16", [1, -2]],
    ["raw bits as bf16", Uint16Array.of(0x3f80, 0xc000), "bf16", "bf16", [1, -2]],
  ])("%s", async (_, values, dtype, expected, numbers) => {
    const { backend } = fake();
    const tensor = backend.upload(values, [1, 2], dtype, "named");
    expect(tensor).toMatchObject({ dtype: expected, shape: [1, 2] });
    expect(tensor.buffer.label).toBe("named");
    expect([...(await tensor.read())]).toEqual(numbers);
  });

  it("do not keep the caller's array", async () => {
    const { backend } = fake();
    const values = Float32Array.of(1, 2);
    const tensor = backend.upload(values, [2]);
    values.fill(0);
    expect([...(await tensor.read())]).toEqual([1, 2]);
  });

  it.each(dtypes)("hand %s that lies in shared memory over in memory of its own", async (dtype) => {
    const handed: unknown[] = [];
    const { backend } = fake({
      override: {
        write: (handle, data, offset) => {
          handed.push(data.buffer.constructor);
          handle.data.set(data, offset);
        },
      },
    });
    const memory = new SharedArrayBuffer(32);
    const views = { f32: Float32Array, i32: Int32Array, f16: Uint16Array, bf16: Uint16Array };
    const values = Reflect.construct(views[dtype], [memory, 8, 3]) as TypedArray;
    values.set([7, 8, 9]);
    const tensor = backend.upload(values, [3], dtype);
    expect([...(await tensor.readRaw())]).toEqual([7, 8, 9]);
    backend.write(tensor.buffer, values.subarray(1), 0);
    expect([...(await tensor.readRaw())]).toEqual([8, 9, 9]);
    expect(handed).toEqual([ArrayBuffer, ArrayBuffer]);
  });

  it("refuse values that do not fit, and leave nothing allocated", () => {
    const { backend } = fake();
    expectThrow(
      () => backend.upload([1, 2], [3]),
      "INVALID_ARGUMENT",
      "values has 2 elements; shape [3] takes 3",
    );
    expectThrow(() => backend.upload([1, 2], [-2]), "INVALID_ARGUMENT", "shape [-2]");
    expectThrow(() => backend.upload(null as never, [2]), "INVALID_ARGUMENT", "values is null");
    expectThrow(() => backend.upload([1], 1 as never), "INVALID_ARGUMENT", "shape is 1");
    const wide = BigInt64Array.of(1n) as never;
    expectThrow(() => backend.upload(wide, [1], "i32"), "INVALID_ARGUMENT", "values is BigInt64Array");
    expectThrow(() => backend.upload([1.5], [1], "i32"), "INVALID_ARGUMENT", "values[0] is 1.5");
    expectThrow(
      () => backend.upload(Uint16Array.of(1), [1]),
      "INVALID_ARGUMENT",
      "raw bits take dtype f16 or bf16",
    );
    expectThrow(() => backend.upload(Uint16Array.of(1), [1], "f32"), "INVALID_ARGUMENT", "dtype is f32");
    expectThrow(() => backend.upload([1], [1], "f64" as DType), "INVALID_ARGUMENT", "dtype is f64");
    expectThrow(() => backend.zeros([2, 0.5]), "INVALID_ARGUMENT", "0.5");
    expectThrow(() => backend.zeros([2 ** 40, 2 ** 40]), "INVALID_ARGUMENT", "2^53 - 1");
    expect(backend.memory()).toMatchObject({ liveBytes: 0, peakBytes: 0 });
  });

  it("frees the buffer when the write fails", () => {
    const { backend, log } = fake({
      override: {
        write: () => {
          throw new Error("bus error");
        },
      },
    });
    expectThrow(() => backend.upload([1], [1]), "BACKEND_FAILED", "fake: write: bus error");
    expect(log).toEqual(["alloc ", "free "]);
    expect(backend.memory().liveBytes).toBe(0);
  });

  it("zeros have the shape, dtype and label asked for", async () => {
    const tensor = fake().backend.zeros([2, 2], "f16", "grad");
    expect([...(await tensor.read())]).toEqual([0, 0, 0, 0]);
    expect(tensor.dtype).toBe("f16");
    expect(tensor.buffer.label).toBe("grad");
  });
});

it("an implementation that throws anything gets a code around it", async () => {
  const fails = () => {
    throw new Error("inside");
  };
  const { backend } = fake({
    override: { write: fails, copy: fails, free: fails, read: fails, forceLoss: fails },
  });
  const buffer = backend.alloc("f32", 1);
  expectThrow(() => backend.write(buffer, new Float32Array(1)), "BACKEND_FAILED", "fake: write: inside");
  expectThrow(() => backend.copy(buffer, backend.alloc("f32", 1)), "BACKEND_FAILED", "fake: copy: inside");
  await expectReject(backend.read(buffer), "BACKEND_FAILED", "fake: read: inside");
  expectThrow(() => buffer.dispose(), "BACKEND_FAILED", "fake: free: inside");
});
