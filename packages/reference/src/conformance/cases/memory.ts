import { bytesPerElement, dtypes, FlashMoeError } from "@flash-moe/core";
import { type ConformanceCase, needs } from "../case.js";
import { ConformanceFailure, check, checkEqual, checkSameBits, checkThrows } from "../failure.js";
import { runOp, samples } from "../samples.js";

/** Bytes are counted, and what cannot fit is refused. */
export const memoryCases: readonly ConformanceCase[] = [
  {
    id: "memory/live-bytes",
    needs: () => true,
    async run({ backend }) {
      const before = backend.memory().liveBytes;
      let expected = before;
      const buffers = [];
      for (const dtype of dtypes) {
        if (dtype !== "i32" && !backend.capabilities.dtypes[dtype].has("storage")) continue;
        for (const length of [0, 1, 3, 1000]) {
          buffers.push(backend.alloc(dtype, length));
          expected += length * bytesPerElement(dtype);
          checkEqual(`liveBytes after ${length} ${dtype}`, backend.memory().liveBytes, expected);
        }
      }
      for (const buffer of buffers) {
        buffer.dispose();
        expected -= buffer.byteLength;
        checkEqual("liveBytes after dispose", backend.memory().liveBytes, expected);
        buffer.dispose();
        checkEqual("liveBytes after a second dispose", backend.memory().liveBytes, expected);
      }
      checkEqual("liveBytes at the end", backend.memory().liveBytes, before);
    },
  },
  {
    id: "memory/peak",
    needs: () => true,
    async run({ backend }) {
      const buffer = backend.alloc("f32", 100_000);
      const { liveBytes, peakBytes } = backend.memory();
      check(peakBytes >= liveBytes, `peakBytes is ${peakBytes} with ${liveBytes} live`);
      buffer.dispose();
      check(backend.memory().peakBytes >= peakBytes, "peakBytes went down");
    },
  },
  {
    id: "memory/scratch-does-not-grow",
    needs: () => true,
    async run(context) {
      const { backend, inputs } = context;
      const calls = samples
        .filter(({ op }) => backend.capabilities.ops.has(op))
        .map((sample) => ({
          op: sample.op,
          call: sample.build(context, inputs, { tokens: 40, dtype: "f32", width: 30 }),
        }));
      const runAll = async (): Promise<number> => {
        for (const { op, call } of calls) runOp(backend, op, call);
        await backend.sync();
        const { scratchBytes, liveBytes, peakBytes } = backend.memory();
        check(scratchBytes >= 0, `scratchBytes is ${scratchBytes}`);
        check(
          peakBytes >= liveBytes + scratchBytes,
          "peakBytes is below liveBytes and scratchBytes together",
        );
        return scratchBytes;
      };
      // A pool may grow at first.
      await runAll();
      const settled = await runAll();
      for (let n = 0; n < 3; n++) {
        const scratch = await runAll();
        check(scratch <= settled, `scratchBytes went from ${settled} to ${scratch} with the same calls`);
      }
    },
  },
  {
    // The bytes that core counts go down by themselves: what the device has must come back too.
    id: "memory/freed-is-used-again",
    needs: () => true,
    async run(context) {
      const { backend } = await context.fresh();
      const { limitBytes } = backend.memory();
      // More than there is: than the limit, than 32 bits can address, and than any GPU has if that is unknown.
      const total = Math.max(2 * (limitBytes ?? 2 ** 37), 2 ** 33);
      const bytes = Math.min(
        2 ** 26,
        backend.capabilities.maxBufferBytes,
        Math.floor((limitBytes ?? total) / 4),
      );
      const length = Math.floor(bytes / 4);
      const count = Math.min(Math.ceil(total / bytes), 20_000);
      for (let n = 0; n < count; n++) {
        try {
          // Never written to: then it costs next to nothing.
          backend.alloc("f32", length, { zeroed: false }).dispose();
          if (n % 16 === 15) await backend.sync();
        } catch (error) {
          if (!FlashMoeError.is(error) || error.code !== "OUT_OF_MEMORY") throw error;
          const what = `after ${n} buffers of ${4 * length} bytes, each disposed of before the next`;
          throw new ConformanceFailure(`out of memory ${what}: ${error.message}`, { cause: error });
        }
      }
    },
  },
  {
    id: "memory/too-long",
    needs: () => true,
    async run({ backend }) {
      const before = backend.memory().liveBytes;
      const { maxBufferBytes } = backend.capabilities;
      const tooLong = Math.floor(maxBufferBytes / 4) + 1;
      for (const length of [tooLong, 2 ** 53, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        checkThrows(`alloc of ${length} f32`, "INVALID_ARGUMENT", () => backend.alloc("f32", length));
      }
      checkThrows("zeros of 2^60 elements", "INVALID_ARGUMENT", () => backend.zeros([2 ** 30, 2 ** 30]));
      checkEqual("liveBytes", backend.memory().liveBytes, before);
    },
  },
  {
    id: "memory/out-of-memory",
    needs: (backend) => {
      const limited = needs({ memoryLimit: true })(backend);
      if (limited !== true) return limited;
      const { limitBytes, liveBytes } = backend.memory();
      if (backend.capabilities.maxBufferBytes >= limitBytes! - liveBytes + 8) return true;
      return "has more memory than fits one buffer: a large case fills it";
    },
    async run(context) {
      const { backend } = context;
      const held = context.floats(context.inputs.normal(10));
      const before = await context.raw(held);
      const { limitBytes, liveBytes } = backend.memory();
      // Of scratch that is only kept, a backend may make room.
      const room = limitBytes! - liveBytes;
      const length = Math.floor(room / 4) + 1;
      const error = checkThrows(`alloc of ${4 * length} bytes with room for ${room}`, "OUT_OF_MEMORY", () =>
        backend.alloc("f32", length),
      );
      const left = room - backend.memory().scratchBytes;
      check(
        error.message.includes(String(4 * length)),
        `"${error.message}" does not say ${4 * length} bytes`,
      );
      check(
        error.message.includes(String(left)),
        `"${error.message}" does not say that ${left} bytes are left`,
      );
      checkEqual("liveBytes afterwards", backend.memory().liveBytes, liveBytes);
      checkSameBits("a buffer made before", await context.raw(held), before);
      context.floats(context.inputs.normal(10));
      await backend.sync();
    },
  },
];
