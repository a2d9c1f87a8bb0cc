import {
  decode,
  encode,
  FlashMoeError,
  hostArray,
  type OpCalls,
  opNames,
  type TypedArray,
} from "@flash-moe/core";
import type { Change } from "../wrapped-backend.js";
import { type Fault, readNumbers, replacedBy, rewrite } from "./fault.js";

/** Takes memory for intermediates at every call and does not give it back. */
const leakScratch: Change = (correct, { runtime }) => ({
  ops: Object.fromEntries(
    opNames.map((op) => [
      op,
      (call: OpCalls[typeof op]) => {
        runtime.budget.reserveScratch(256, op);
        (correct.ops[op] as (call: OpCalls[typeof op]) => void)(call);
      },
    ]),
  ),
});

/** The bits of a 32-bit word that was read, changed in part and written back: the neighbour is lost. */
function wholeWords(data: TypedArray): TypedArray {
  if (!(data instanceof Uint16Array) || data.length % 2 === 0) return data;
  const padded = new Uint16Array(data.length + 1);
  padded.set(data);
  return padded;
}

/** Buffers, order, errors and the end of a device. */
export const deviceFaults: readonly Fault[] = [
  {
    name: "sync is a promise that is settled already",
    change: () => ({ async sync() {} }),
    cases: /^lifecycle\/timers/,
    found: ["lifecycle/timers-run"],
  },
  {
    name: "read answers at once",
    change: () => ({ read: async (buffer, _, length) => hostArray(buffer.dtype, length) }),
    cases: /^lifecycle\/timers/,
    found: ["lifecycle/timers-run"],
  },
  {
    name: "scratch is leaked",
    change: leakScratch,
    cases: /^memory\//,
    found: ["memory/scratch-does-not-grow"],
  },
  {
    name: "what is reserved is done",
    change: (correct) => ({
      reserve: (op, call) => (correct.ops[op] as (call: OpCalls[typeof op]) => void)(call),
    }),
    cases: /^traits\/[^/]*\/together$/,
    found: ["traits/mlp-backward/together", "traits/adamw-dense/together"],
  },
  {
    name: "free keeps memory",
    change: () => ({ free() {} }),
    cases: /^memory\//,
    found: ["memory/freed-is-used-again"],
  },
  {
    name: "sums in another order at every second call",
    change: (correct, tools) => {
      let calls = 0;
      return replacedBy("expertsForward", async (call, run, rest) => {
        run(call);
        if (++calls % 2 === 0) return;
        await rewrite(rest, call.output, (values) => values.map((v, n) => (n === 3 ? v * (1 + 2 ** -8) : v)));
      })(correct, tools);
    },
    cases: /^repeatability\//,
    found: ["repeatability/experts-forward/f32", "repeatability/experts-forward/bf16"],
  },
  {
    name: "one last bit of a gradient left to chance",
    change: (correct, tools) => {
      let calls = 0;
      return replacedBy("linear", async (call, run, rest) => {
        run(call);
        if (++calls % 2 === 0 || call.output.dtype !== "f32") return;
        await rewrite(rest, call.output, (values) => values.map((v) => v * (1 + 2 ** -23)));
      })(correct, tools);
    },
    cases: /^(linear|repeatability\/linear|layer\/f32)/,
    found: ["repeatability/linear-weight-gradient/f32", "layer/f32/training/repeated"],
  },
  {
    name: "ids are not guarded",
    change: replacedBy("expertsForward", async (call, run, tools) => {
      const ids = tools.inner.alloc("i32", call.ids.length);
      const given = await readNumbers(tools, call.ids);
      await rewrite(tools, ids, () => given.map((id) => (id < 0 || id >= call.numExperts ? 0 : id)));
      run({ ...call, ids });
      ids.dispose();
    }),
    cases: /^(experts-forward\/.*outside|late-errors\/)/,
    found: ["experts-forward/f32/ids-outside", "late-errors/at-sync", "late-errors/at-dispose"],
  },
  {
    name: "ids out of range are passed over in silence",
    change: (correct, { inner }) => ({
      sync: () => correct.sync().catch(() => inner.sync()),
      read: (buffer, offset, length) =>
        correct.read(buffer, offset, length).catch(() => inner.read(buffer, offset, length)),
    }),
    cases: /(outside|compact-count|^late-errors)/,
    found: [
      "experts-forward/f32/ids-outside",
      "experts-backward/f32/ids-outside/compact",
      "router-select-backward/ids-outside",
      "adamw/f32/compact-ids-outside",
      "adamw/f32/compact-count-over",
      "late-errors/at-read",
    ],
  },
  {
    name: "errors of the device carry no code",
    change: (correct) => ({
      sync: () =>
        correct.sync().catch(() => {
          throw new Error("the kernel failed");
        }),
    }),
    cases: /^late-errors\//,
    found: ["late-errors/at-sync"],
  },
  {
    name: "new buffers hold what was there before",
    change: (correct) => ({
      alloc(dtype, length, zeroed, label) {
        const buffer = correct.alloc(dtype, length, zeroed, label);
        correct.write(buffer, hostArray(dtype, length).fill(1), 0);
        return buffer;
      },
    }),
    cases: /^buffers\//,
    found: ["buffers/zeroed"],
  },
  {
    name: "a write keeps the caller's array",
    change: (_, { inner, enqueue }) => ({
      write: (buffer, data, offset) => enqueue(() => inner.write(buffer, data, offset)),
    }),
    cases: /^buffers\//,
    found: ["buffers/write-takes-a-copy"],
  },
  {
    name: "a write ignores its offset",
    change: (correct) => ({ write: (buffer, data) => correct.write(buffer, data, 0) }),
    cases: /^buffers\//,
    found: ["buffers/offsets"],
  },
  {
    name: "a write of 16-bit elements takes the neighbour's half of the word",
    change: (correct) => ({
      write(buffer, data, offset) {
        const words = wholeWords(data);
        const fits = offset + words.length <= buffer.length;
        correct.write(buffer, fits ? words : data, offset);
      },
    }),
    cases: /^buffers\//,
    found: ["buffers/offsets"],
  },
  {
    name: "a read ignores its offset",
    change: (correct) => ({ read: (buffer, _, length) => correct.read(buffer, 0, length) }),
    cases: /^buffers\//,
    found: ["buffers/offsets"],
  },
  {
    name: "a read happens after what was submitted later",
    change: (_, { inner, enqueue }) => ({
      read: (buffer, offset, length) =>
        new Promise((resolve, reject) =>
          enqueue(() => {
            // The next turn of the queue, behind all that is in it by then.
            enqueue(() => inner.read(buffer, offset, length).then(resolve, reject));
          }),
        ),
    }),
    cases: /^buffers\//,
    found: ["buffers/read-is-a-snapshot", "buffers/order-of-submission"],
  },
  {
    name: "a read gives the same array again",
    change: (correct) => {
      const kept = new Map<unknown, TypedArray>();
      return {
        async read(buffer, offset, length) {
          const fresh = await correct.read(buffer, offset, length);
          const old = kept.get(buffer);
          if (old === undefined || old.length !== fresh.length) kept.set(buffer, fresh);
          else old.set(fresh as Float32Array & Int32Array & Uint16Array);
          return kept.get(buffer)!;
        },
      };
    },
    cases: /^buffers\//,
    found: ["buffers/read-is-a-snapshot"],
  },
  {
    name: "16-bit data is converted on the way",
    change: (correct) => ({
      write(buffer, data, offset) {
        const { dtype } = buffer;
        // Through f32, NaNs lose their bits.
        const canonical = Array.from(decode(data, dtype), (x) => (Number.isNaN(x) ? Number.NaN : x));
        correct.write(buffer, dtype === "i32" ? data : encode(canonical, dtype), offset);
      },
    }),
    cases: /^buffers\//,
    found: ["buffers/raw-bits"],
  },
  {
    name: "a copy of the last elements is left out",
    change: (_, { inner, enqueue }) => ({
      copy: (source, target) =>
        enqueue(async () => {
          inner.write(target, await inner.read(source, 0, source.length - (source.length % 4)));
        }),
    }),
    cases: /^buffers\//,
    found: ["buffers/copy"],
  },
  {
    name: "memory is taken back before the work that uses it",
    change: () => ({ free: (buffer) => buffer.dispose() }),
    cases: /^buffers\//,
    found: ["buffers/dispose-after-submission", "buffers/read-of-a-buffer-disposed-meanwhile"],
  },
  {
    name: "memory is cleared before the work that uses it",
    change: (_, { inner }) => ({
      free: (buffer) => inner.write(buffer, hostArray(buffer.dtype, buffer.length)),
    }),
    cases: /^buffers\//,
    found: ["buffers/dispose-after-submission"],
  },
  {
    name: "dispose does not wait",
    change: (_, { inner }) => ({ sync: async () => {}, dispose: () => inner.dispose() }),
    cases: /^(lifecycle|late-errors)\//,
    found: ["late-errors/at-dispose"],
  },
  {
    name: "sync never resolves",
    change: () => ({ sync: () => new Promise(() => {}) }),
    cases: /^late-errors\/at-sync$/,
    found: ["late-errors/at-sync"],
    hangs: true,
  },
  {
    name: "the loss is never told",
    change: () => ({ forceLoss() {} }),
    cases: /^lost-device\//,
    found: ["lost-device/everything-fails", "lost-device/pending"],
    hangs: true,
  },
  {
    name: "the loss is told without a word",
    change: (_, { runtime }) => ({ forceLoss: () => runtime.lose({ reason: "unknown", message: "" }) }),
    cases: /^lost-device\//,
    found: ["lost-device/everything-fails"],
  },
  {
    name: "an op throws something of its own",
    change: () => ({
      ops: {
        linear() {
          throw new FlashMoeError("BACKEND_FAILED", "no such kernel");
        },
      },
    }),
    cases: /^(linear\/f32\/one-by-one|traits\/linear\/prepare)$/,
    found: ["linear/f32/one-by-one", "traits/linear/prepare"],
  },
];
