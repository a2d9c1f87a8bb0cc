import { type DeviceBuffer, type OpCalls, type TypedArray, together } from "@flash-moe/core";
import type { BufferScope } from "./buffer-scope.js";
import { type ConformanceCase, needs } from "./case.js";
import type { CaseContext } from "./context.js";
import { check, checkEqual, checkRejects, checkSameBits, checkThrows } from "./failure.js";
import { Inputs, seedOf } from "./inputs.js";
import { readOutputs } from "./read-outputs.js";
import { buffersOf, runOp, type Sample, samples, withBuffer } from "./samples.js";

const small = { tokens: 5, dtype: "f32", width: 6 } as const;

interface Trait {
  readonly name: string;
  /** Some do not go with every sample. */
  readonly appliesTo?: (sample: Sample) => boolean;
  run(context: CaseContext, sample: Sample): Promise<void>;
}

/** Builds the sample's call with one buffer replaced, and expects it to be refused for that buffer. */
async function refusedWith(
  context: CaseContext,
  sample: Sample,
  code: "DISPOSED" | "FOREIGN_BUFFER" | "INVALID_ARGUMENT",
  replace: (buffer: DeviceBuffer) => DeviceBuffer | undefined,
): Promise<void> {
  const call = sample.build(context, context.inputs, small);
  const outputs = await readAll(context, outputsOf(sample, call));
  for (const [name, buffer] of buffersOf(call)) {
    const wrong = withBuffer(call, name, replace(buffer));
    const error = checkThrows(`${sample.op} with another ${name}`, code, () =>
      runOp(context.backend, sample.op, wrong),
    );
    check(error.message.includes(name), `the message "${error.message}" does not name ${name}`);
    await checkRejects(`prepare of ${sample.op} with another ${name}`, code, () =>
      context.backend.prepare(sample.op, wrong),
    );
  }
  await checkUnchanged(context, outputsOf(sample, call), outputs);
}

const traits: readonly Trait[] = [
  {
    name: "disposed-buffer",
    run: (context, sample) =>
      refusedWith(context, sample, "DISPOSED", ({ dtype, length }) => {
        const buffer = context.backend.alloc(dtype, length);
        buffer.dispose();
        return buffer;
      }),
  },
  {
    name: "foreign-buffer",
    async run(context, sample) {
      const second = await context.second();
      await refusedWith(context, sample, "FOREIGN_BUFFER", ({ dtype, length }) =>
        second.alloc(dtype, length),
      );
    },
  },
  {
    name: "wrong-dtype",
    run: (context, sample) =>
      refusedWith(context, sample, "INVALID_ARGUMENT", ({ dtype, length }) =>
        context.alloc(dtype === "i32" ? "f32" : "i32", length),
      ),
  },
  {
    name: "wrong-length",
    run: (context, sample) =>
      refusedWith(context, sample, "INVALID_ARGUMENT", ({ dtype, length }) =>
        context.alloc(dtype, length + 1),
      ),
  },
  {
    name: "aliased-output",
    async run(context, sample) {
      const call = sample.build(context, context.inputs, small);
      const buffers = buffersOf(call);
      for (const name of sample.outputs) {
        const output = buffers.get(name)!;
        for (const [other, buffer] of buffers) {
          if (other === name || buffer.dtype !== output.dtype || buffer.length !== output.length) continue;
          checkThrows(`${sample.op} with ${other} in place of ${name}`, "INVALID_ARGUMENT", () =>
            runOp(context.backend, sample.op, withBuffer(call, name, buffer)),
          );
        }
      }
    },
  },
  {
    name: "zero-tokens",
    appliesTo: (sample) => sample.minTokens === 0,
    async run(context, sample) {
      const call = sample.build(context, context.inputs, { ...small, tokens: 0 });
      runOp(context.backend, sample.op, call);
      const buffers = buffersOf(call);
      for (const name of sample.sums ?? []) {
        const values = await context.values(buffers.get(name)!);
        const wrong = values.findIndex((value) => value !== 0);
        check(wrong < 0, `${name}[${wrong}] is ${values[wrong]} with zero tokens; expected 0`);
      }
      await context.backend.sync();
    },
  },
  {
    name: "zero-tokens-accumulated",
    appliesTo: (sample) => sample.accumulate !== undefined,
    async run(context, sample) {
      const call = sample.build(context, context.inputs, { ...small, tokens: 0 });
      const sums = pick(buffersOf(call), sample.sums ?? []);
      for (const buffer of sums.values()) {
        context.backend.write(buffer, context.inputs.normal(buffer.length).raw);
      }
      const before = await readAll(context, sums);
      runOp(context.backend, sample.op, { ...call, accumulate: sample.accumulate } as typeof call);
      await checkUnchanged(context, sums, before);
    },
  },
  {
    name: "inputs-unchanged",
    async run(context, sample) {
      const call = sample.build(context, context.inputs, small);
      const inputs = buffersOf(call);
      for (const name of sample.outputs) inputs.delete(name);
      const before = await readAll(context, inputs);
      runOp(context.backend, sample.op, call);
      await checkUnchanged(context, inputs, before);
    },
  },
  {
    name: "prepare",
    async run(context, sample) {
      const call = sample.build(context, context.inputs, small);
      const outputs = outputsOf(sample, call);
      const before = await readAll(context, outputs);
      checkEqual("what prepare resolves to", await context.backend.prepare(sample.op, call), undefined);
      await checkUnchanged(context, outputs, before);
      runOp(context.backend, sample.op, call);
      await context.backend.sync();
    },
  },
  {
    // What a backend reserves it must not do as well: an output that is added to, or updated in place, tells.
    name: "together",
    async run(context, sample) {
      const { backend } = context;
      const outcome = async (submit: (work: () => void) => void): Promise<Map<string, TypedArray>> => {
        const inputs = new Inputs(seedOf(sample.name));
        const call = sample.build(context, inputs, small);
        const { accumulate } = sample;
        const sums = pick(buffersOf(call), accumulate === undefined ? [] : (sample.sums ?? []));
        for (const buffer of sums.values()) backend.write(buffer, inputs.normal(buffer.length).raw);
        const whole = accumulate === undefined ? call : ({ ...call, accumulate } as typeof call);
        submit(() => runOp(backend, sample.op, whole));
        return readOutputs(context, sample, whole);
      };
      const alone = await outcome((work) => work());
      const results = await outcome((work) => together(backend, work));
      for (const [name, values] of results) context.compareNorm(name, values, alone.get(name)!, 1e-3);
    },
  },
];

/** What every op must do, whatever it computes: each trait with each sample. */
export const traitCases: readonly ConformanceCase[] = samples.flatMap((sample) =>
  traits
    .filter(({ appliesTo }) => appliesTo?.(sample) ?? true)
    .map((trait) => ({
      id: `traits/${sample.name}/${trait.name}`,
      needs: needs({ ops: [sample.op] }),
      run: (context: CaseContext) => trait.run(context, sample),
    })),
);

type Buffers = ReadonlyMap<string, DeviceBuffer>;

function outputsOf(sample: Sample, call: OpCalls[keyof OpCalls]): Buffers {
  return pick(buffersOf(call), sample.outputs);
}

function pick(buffers: Buffers, names: readonly string[]): Buffers {
  return new Map([...buffers].filter(([name]) => names.includes(name)));
}

async function readAll(scope: BufferScope, buffers: Buffers): Promise<Map<string, TypedArray>> {
  const contents = new Map<string, TypedArray>();
  for (const [name, buffer] of buffers) contents.set(name, await scope.raw(buffer));
  return contents;
}

async function checkUnchanged(
  scope: BufferScope,
  buffers: Buffers,
  before: ReadonlyMap<string, TypedArray>,
): Promise<void> {
  for (const [name, buffer] of buffers) checkSameBits(name, await scope.raw(buffer), before.get(name)!);
}
