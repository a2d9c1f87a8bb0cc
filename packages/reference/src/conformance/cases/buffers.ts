import { bytesPerElement, type DType, dtypes, hostArray, type TypedArray } from "@flash-moe/core";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { check, checkEqual, checkRejects, checkSameBits, checkThrows } from "../failure.js";

/** Bits that conversions on the way would change: NaNs with a payload, infinities, subnormals, signed zeros. */
function rawBits(context: CaseContext, dtype: DType, length: number): TypedArray {
  const data = hostArray(dtype, length);
  const bits = new Uint32Array(Math.ceil(data.byteLength / 4)).map(() => context.inputs.random.next());
  new Uint8Array(data.buffer).set(new Uint8Array(bits.buffer, 0, data.byteLength));
  const special: Record<DType, readonly number[]> = {
    f32: [0x7fc12345, 0xff812345, 0x7f800000, 0xff800000, 1, 0x807fffff, 0x80000000],
    i32: [0x7fffffff, 0x80000000, 0xffffffff],
    f16: [0x7e12, 0xfc01, 0x7c00, 0xfc00, 1, 0x83ff, 0x8000],
    bf16: [0x7fc1, 0xff81, 0x7f80, 0xff80, 1, 0x807f, 0x8000],
  };
  const words = dtype === "f32" || dtype === "i32" ? new Uint32Array(data.buffer) : (data as Uint16Array);
  special[dtype].slice(0, length).forEach((word, n) => {
    words[n] = word;
  });
  return data;
}

function part(data: TypedArray, offset: number, length: number): TypedArray {
  return data.slice(offset, offset + length);
}

/** The dtypes that this backend stores: i32 always. */
function stored({ backend }: CaseContext): DType[] {
  return dtypes.filter((dtype) => dtype === "i32" || backend.capabilities.dtypes[dtype].has("storage"));
}

/** Buffers, reads, writes and copies. */
export const bufferCases: readonly ConformanceCase[] = [
  {
    id: "buffers/described",
    needs: () => true,
    async run(context) {
      for (const dtype of stored(context)) {
        const buffer = context.alloc(dtype, 7, "a label");
        check(buffer.backend === context.backend, "buffer.backend is another backend");
        checkEqual("dtype", buffer.dtype, dtype);
        checkEqual("length", buffer.length, 7);
        checkEqual("byteLength", buffer.byteLength, 7 * bytesPerElement(dtype));
        checkEqual("label", buffer.label, "a label");
        checkEqual("disposed", buffer.disposed, false);
      }
    },
  },
  {
    id: "buffers/zeroed",
    needs: () => true,
    async run(context) {
      for (const dtype of stored(context)) {
        for (const length of [1, 2, 3, 257, 70_001]) {
          // Memory that was used before is the one that is not zero by itself.
          const used = context.backend.alloc(dtype, length, { zeroed: false });
          context.backend.write(used, rawBits(context, dtype, length));
          used.dispose();
          const buffer = context.alloc(dtype, length);
          checkSameBits(`${length} ${dtype}`, await context.raw(buffer), hostArray(dtype, length));
        }
      }
    },
  },
  {
    id: "buffers/raw-bits",
    needs: () => true,
    async run(context) {
      for (const dtype of stored(context)) {
        for (const length of [1, 2, 3, 129, 70_001]) {
          const data = rawBits(context, dtype, length);
          const buffer = context.alloc(dtype, length);
          context.backend.write(buffer, data);
          checkSameBits(`${length} ${dtype}`, await context.raw(buffer), data);
        }
      }
    },
  },
  {
    // Two elements of 16 bits share a word: what is beside the range must keep its bits.
    id: "buffers/offsets",
    needs: () => true,
    async run(context) {
      const length = 37;
      for (const dtype of stored(context)) {
        for (const [offset, count] of [
          [0, 1],
          [1, 1],
          [1, 2],
          [3, 5],
          [2, 35],
          [35, 2],
          [36, 1],
          [37, 0],
          [0, 37],
        ]) {
          const expected = rawBits(context, dtype, length);
          const buffer = context.alloc(dtype, length);
          context.backend.write(buffer, expected);
          const piece = rawBits(context, dtype, count);
          context.backend.write(buffer, piece, offset);
          expected.set(piece, offset);
          const what = `${dtype} after a write of ${count} at ${offset}`;
          checkSameBits(what, await context.raw(buffer), expected);
          checkSameBits(
            `${dtype}, ${count} at ${offset},`,
            await context.backend.read(buffer, offset, count),
            part(expected, offset, count),
          );
          checkSameBits(
            `${dtype} from ${offset} on`,
            await context.backend.read(buffer, offset),
            part(expected, offset, length - offset),
          );
        }
      }
    },
  },
  {
    id: "buffers/range-errors",
    needs: () => true,
    async run(context) {
      const { backend } = context;
      const buffer = context.alloc("f32", 5);
      const data = new Float32Array(3);
      for (const offset of [-1, 3, 0.5, Number.NaN]) {
        checkThrows(`write of 3 at ${offset}`, "INVALID_ARGUMENT", () => backend.write(buffer, data, offset));
      }
      for (const [offset, length] of [
        [-1, 2],
        [4, 2],
        [0, 6],
        [0, -1],
        [0.5, 1],
        [0, 1.5],
        [6, 0],
      ]) {
        await checkRejects(`read of ${length} at ${offset}`, "INVALID_ARGUMENT", () =>
          backend.read(buffer, offset, length),
        );
      }
      const others: unknown[] = [new Int32Array(3), new Uint16Array(3), new Float64Array(3), [1, 2, 3]];
      for (const other of others) {
        checkThrows("write of another type", "INVALID_ARGUMENT", () =>
          backend.write(buffer, other as TypedArray),
        );
      }
      checkSameBits("the buffer", await context.raw(buffer), new Float32Array(5));
    },
  },
  {
    id: "buffers/length-0",
    needs: () => true,
    async run(context) {
      for (const dtype of stored(context)) {
        const buffer = context.alloc(dtype, 0);
        checkEqual("byteLength", buffer.byteLength, 0);
        context.backend.write(buffer, hostArray(dtype, 0));
        checkSameBits(`empty ${dtype}`, await context.raw(buffer), hostArray(dtype, 0));
        context.backend.copy(buffer, context.alloc(dtype, 0));
        const tensor = context.backend.zeros([3, 0, 2], dtype);
        context.keep(tensor.buffer);
        checkEqual("length of a tensor of no elements", (await tensor.readRaw()).length, 0);
      }
    },
  },
  {
    id: "buffers/copy",
    needs: () => true,
    async run(context) {
      const { backend } = context;
      for (const dtype of stored(context)) {
        for (const length of [1, 2, 37, 70_001]) {
          const data = rawBits(context, dtype, length);
          const source = context.alloc(dtype, length);
          const target = context.output(dtype, length);
          backend.write(source, data);
          backend.copy(source, target);
          backend.write(source, rawBits(context, dtype, length));
          checkSameBits(`copy of ${length} ${dtype}`, await context.raw(target), data);
        }
      }
    },
  },
  {
    id: "buffers/copy-errors",
    needs: () => true,
    async run(context) {
      const { backend } = context;
      const source = context.alloc("f32", 5);
      checkThrows("copy onto itself", "INVALID_ARGUMENT", () => backend.copy(source, source));
      for (const target of [context.alloc("f32", 6), context.alloc("i32", 5)]) {
        checkThrows("copy to another size or dtype", "INVALID_ARGUMENT", () => backend.copy(source, target));
      }
      const second = await context.second();
      const foreign = second.alloc("f32", 5);
      checkThrows("copy from another backend", "FOREIGN_BUFFER", () => backend.copy(foreign, source));
      checkThrows("copy to another backend", "FOREIGN_BUFFER", () => backend.copy(source, foreign));
      checkThrows("write to another backend", "FOREIGN_BUFFER", () =>
        backend.write(foreign, new Float32Array(5)),
      );
      await checkRejects("read from another backend", "FOREIGN_BUFFER", () => backend.read(foreign));
    },
  },
  {
    id: "buffers/write-takes-a-copy",
    needs: () => true,
    async run(context) {
      const data = context.inputs.normal(300).raw;
      const expected = data.slice();
      const buffer = context.alloc("f32", 300);
      context.backend.write(buffer, data);
      data.fill(7);
      checkSameBits("what was written", await context.raw(buffer), expected);
    },
  },
  {
    id: "buffers/write-part-of-an-array",
    needs: () => true,
    async run(context) {
      const whole = context.inputs.normal(20).raw;
      const buffer = context.alloc("f32", 5);
      context.backend.write(buffer, whole.subarray(7, 12));
      checkSameBits("what was written", await context.raw(buffer), whole.slice(7, 12));
    },
  },
  {
    id: "buffers/read-is-a-snapshot",
    needs: () => true,
    async run(context) {
      const { backend, inputs } = context;
      const before = inputs.normal(5000).raw;
      const after = inputs.normal(5000).raw;
      const buffer = context.alloc("f32", 5000);
      backend.write(buffer, before);
      const reading = backend.read(buffer);
      backend.write(buffer, after);
      const readingLater = backend.read(buffer);
      const first = await reading;
      const second = await readingLater;
      checkSameBits("a read that was called before a write", first, before);
      checkSameBits("a read that was called after it", second, after);
      first.fill(3);
      const third = await backend.read(buffer);
      checkSameBits("a read after another's result was changed", third, after);
      checkSameBits("a result after another read", first, hostArray("f32", 5000).fill(3));
    },
  },
  {
    id: "buffers/read-of-a-buffer-disposed-meanwhile",
    needs: () => true,
    async run(context) {
      const { backend, inputs } = context;
      const data = inputs.normal(5000).raw;
      const buffer = backend.alloc("f32", 5000);
      backend.write(buffer, data);
      const reading = backend.read(buffer);
      buffer.dispose();
      context.backend.write(context.alloc("f32", 5000), inputs.normal(5000).raw);
      checkSameBits("the read", await reading, data);
    },
  },
  {
    id: "buffers/order-of-submission",
    needs: needs({ ops: ["linear"] }),
    async run(context) {
      const { backend } = context;
      const one = context.floats(context.inputs.constant(1, 1));
      const value = context.alloc("f32", 1);
      const output = context.alloc("f32", 1);
      const doubled: Promise<TypedArray>[] = [];
      const call = {
        rows: 1,
        inner: 1,
        columns: 1,
        a: value,
        b: one,
        output,
        accumulate: ["output"],
      } as const;
      for (let n = 1; n <= 20; n++) {
        backend.write(output, Float32Array.of(n));
        backend.write(value, Float32Array.of(n));
        backend.ops.linear(call);
        backend.write(value, Float32Array.of(-1000));
        doubled.push(backend.read(output));
      }
      for (let n = 1; n <= 20; n++)
        checkEqual(`read ${n} of 20, each called before the next write,`, (await doubled[n - 1])[0], 2 * n);
    },
  },
  {
    id: "buffers/dispose-after-submission",
    needs: needs({ ops: ["linear"] }),
    async run(context) {
      const { backend, inputs } = context;
      const size = 64;
      const identity = new Float32Array(size * size).map((_, n) => (n % (size + 1) === 0 ? 1 : 0));
      const b = context.alloc("f32", size * size);
      backend.write(b, identity);
      const output = context.output("f32", size * size);
      // Without a wait a write, too, is yet to be done when the buffer goes; with one, the op alone.
      for (const waits of [false, true]) {
        const data = inputs.normal(size * size).raw;
        const a = backend.alloc("f32", size * size);
        backend.write(a, data);
        if (waits) await backend.sync();
        backend.ops.linear({ rows: size, inner: size, columns: size, a, b, output });
        a.dispose();
        // What takes the memory's place must not be seen by work submitted before.
        backend.write(context.alloc("f32", size * size), inputs.normal(size * size).raw);
        checkSameBits("the product with the identity", await context.raw(output), data);
      }
    },
  },
  {
    id: "buffers/upload",
    needs: () => true,
    async run(context) {
      const { backend } = context;
      const values = [1, -2.5, 3.25, 0, 100, -7];
      for (const dtype of stored(context)) {
        const numbers = dtype === "i32" ? values.map(Math.trunc) : values;
        const tensor = backend.upload(numbers, [2, 3], dtype, "label");
        context.keep(tensor.buffer);
        checkEqual("dtype", tensor.dtype, dtype);
        checkEqual("shape", tensor.shape.join(), "2,3");
        checkEqual(`values of ${dtype}`, Array.from(await tensor.read()).join(), numbers.join());
      }
      const integers = backend.upload(Int32Array.of(3, -4), [2]);
      context.keep(integers.buffer);
      checkEqual("dtype of an Int32Array", integers.dtype, "i32");
      checkThrows("upload of 3 values as [2, 2]", "INVALID_ARGUMENT", () =>
        backend.upload([1, 2, 3], [2, 2]),
      );
      checkThrows("upload of 0.5 as i32", "INVALID_ARGUMENT", () => backend.upload([0.5], [1], "i32"));
    },
  },
];
