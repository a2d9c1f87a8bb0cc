import { type AdamwCall, encode, type FloatDType, type TypedArray } from "@flash-moe/core";
import { type AdamwRows, type AdamwSettings, adamwRange, adamwRows } from "../../oracle/adamw.js";
import { adamwErrors } from "../bounds/adamw.js";
import type { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkEqual, checkSameBits } from "../failure.js";
import { decodedValues } from "../inputs.js";
import { checkLateError, outsideOf } from "../late-error.js";

interface AdamwVariant {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** Of the parameter. Default f32. */
  readonly dtype?: FloatDType;
  readonly master?: boolean;
  /** Room for rows, and how many are used: compact. Dense by default. */
  readonly compact?: {
    readonly capacity: number;
    /** Outside [0, capacity] it is clamped, and reported late. */
    readonly count: number;
    /** Some ids are no rows: they are passed over, and reported late. */
    readonly outside?: boolean;
  };
  readonly steps?: number;
  /** Of the first step. Default 1. */
  readonly step?: number;
  readonly settings?: Partial<AdamwSettings>;
}

const usual: Omit<AdamwSettings, "step"> = {
  learningRate: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientScale: 1,
};

const variants: readonly AdamwVariant[] = [
  { name: "f32/one", rows: 1, columns: 1 },
  { name: "f32/odd-sizes", rows: 37, columns: 129 },
  { name: "f32/no-rows", rows: 0, columns: 5 },
  { name: "f32/steps", rows: 7, columns: 33, steps: 5 },
  { name: "f32/late-step", rows: 7, columns: 33, step: 100_000 },
  { name: "f32/clipped", rows: 7, columns: 33, settings: { gradientScale: 0.01 } },
  { name: "f32/no-gradient", rows: 7, columns: 33, settings: { gradientScale: 0 } },
  { name: "f32/no-decay", rows: 7, columns: 33, settings: { weightDecay: 0 } },
  { name: "f32/no-momentum", rows: 7, columns: 33, settings: { beta1: 0, beta2: 0 } },
  { name: "f32/large-epsilon", rows: 7, columns: 33, settings: { epsilon: 0.5 } },
  { name: "f32/master", rows: 7, columns: 33, master: true },
  { name: "f32/compact", rows: 70, columns: 9, compact: { capacity: 20, count: 13 }, steps: 3 },
  { name: "f32/compact-full", rows: 20, columns: 5, compact: { capacity: 20, count: 20 } },
  { name: "f32/compact-none", rows: 20, columns: 5, compact: { capacity: 8, count: 0 } },
  { name: "f32/compact-no-room", rows: 20, columns: 5, compact: { capacity: 0, count: 0 } },
  {
    name: "f32/compact-ids-outside",
    rows: 20,
    columns: 5,
    compact: { capacity: 9, count: 8, outside: true },
  },
  { name: "f32/compact-count-over", rows: 20, columns: 5, compact: { capacity: 8, count: 9 } },
  { name: "f32/compact-no-room-count-over", rows: 20, columns: 5, compact: { capacity: 0, count: 1 } },
  { name: "f32/compact-no-rows-count-over", rows: 0, columns: 5, compact: { capacity: 0, count: 1 } },
  { name: "f32/compact-count-below", rows: 20, columns: 5, compact: { capacity: 8, count: -1 } },
  { name: "f32/compact-many-rows", rows: 70_001, columns: 3, compact: { capacity: 300, count: 299 } },
  ...(["f16", "bf16"] as const).flatMap((dtype): AdamwVariant[] => [
    { name: `${dtype}/odd-sizes`, rows: 37, columns: 129, dtype },
    { name: `${dtype}/steps`, rows: 7, columns: 33, dtype, steps: 4 },
    { name: `${dtype}/master`, rows: 7, columns: 33, dtype, master: true, steps: 4 },
    // Rows of odd length share words of 32 bits with their neighbours.
    { name: `${dtype}/compact`, rows: 70, columns: 9, dtype, compact: { capacity: 40, count: 35 }, steps: 2 },
    {
      name: `${dtype}/compact-master`,
      rows: 70,
      columns: 9,
      dtype,
      master: true,
      compact: { capacity: 40, count: 35 },
      steps: 2,
    },
  ]),
];

/** `adamw` against the oracle, each step judged from the state that the device itself came to. */
export const adamwCases: readonly ConformanceCase[] = variants.map((variant) => ({
  id: `adamw/${variant.name}`,
  needs: needs({ ops: ["adamw"], dtypes: [variant.dtype ?? "f32"] }),
  run: (context) => runAdamw(context, variant),
}));

async function runAdamw(context: CaseContext, variant: AdamwVariant): Promise<void> {
  const { inputs } = context;
  const { rows, columns, dtype = "f32", master = false, compact, steps = 1, step: firstStep = 1 } = variant;
  const size = rows * columns;
  const initial = inputs.normal(size);
  const buffers: AdamwBuffers = {
    parameter: context.floats({ ...initial, dtype, raw: encode(initial.values, dtype) }, "parameter"),
    firstMoment: context.floats(inputs.normal(size, "f32", 0.1), "firstMoment"),
    secondMoment: context.floats(inputs.positive(size, 0.1), "secondMoment"),
    ...(master && { master: context.floats(initial, "master") }),
  };
  for (let step = firstStep; step < firstStep + steps; step++) {
    const settings = { ...usual, ...variant.settings, step };
    const capacity = compact?.capacity ?? rows;
    const gradient = inputs.normal(capacity * columns, "f32", 0.3);
    const count = compact && Math.min(Math.max(compact.count, 0), compact.capacity);
    const ids = compact && usedRows(context, rows, compact, count!);
    const call: AdamwCall = {
      rows,
      columns,
      ...settings,
      ...buffers,
      gradient: context.floats(gradient, "gradient"),
      ...(ids && {
        compact: {
          capacity,
          ids: context.integers(ids, "compact.ids"),
          count: context.integers(Int32Array.of(compact.count), "compact.count"),
        },
      }),
    };
    const before = await readState(context, buffers);
    context.backend.ops.adamw(call);
    if (compact?.outside || compact?.count !== count) await checkLateError(context.backend, "adamw");
    const after = await readState(context, buffers);
    const usedOnly = ids && { rows, columns, ids, count: count! };
    judgeStep(context, { before, after, settings, gradient: gradient.values, compact: usedOnly, dtype });
  }
}

type AdamwBuffers = Pick<AdamwCall, "parameter" | "firstMoment" | "secondMoment" | "master">;

/** What the device holds: the stored parameter, and numbers. */
interface AdamwState {
  readonly stored: TypedArray;
  readonly parameter: Float64Array;
  readonly firstMoment: Float64Array;
  readonly secondMoment: Float64Array;
  readonly master?: Float64Array;
}

async function readState(scope: BufferScope, buffers: AdamwBuffers): Promise<AdamwState> {
  const { parameter, firstMoment, secondMoment, master } = buffers;
  const stored = await scope.raw(parameter);
  return {
    stored,
    parameter: decodedValues(stored, parameter.dtype),
    firstMoment: Float64Array.from(await scope.values(firstMoment)),
    secondMoment: Float64Array.from(await scope.values(secondMoment)),
    ...(master && { master: Float64Array.from(await scope.values(master)) }),
  };
}

interface Step {
  readonly before: AdamwState;
  readonly after: AdamwState;
  readonly settings: AdamwSettings;
  readonly gradient: Float64Array;
  /** The rows of a compact step. */
  readonly compact?: AdamwRows;
  readonly dtype: FloatDType;
}

function judgeStep(context: CaseContext, step: Step): void {
  const { before, after, settings, gradient, compact, dtype } = step;
  const state = {
    parameter: Float64Array.from(before.master ?? before.parameter),
    firstMoment: Float64Array.from(before.firstMoment),
    secondMoment: Float64Array.from(before.secondMoment),
    gradient,
  };
  const size = state.parameter.length;
  if (compact === undefined) adamwRange(state, settings, { start: 0, gradientStart: 0, length: size });
  else adamwRows(state, settings, compact);

  const errors = {
    parameter: new Float64Array(size),
    firstMoment: new Float64Array(size),
    secondMoment: new Float64Array(size),
  };
  const used = new Set<number>();
  forEachElement(step, (at, gradientAt) => {
    used.add(at);
    const bound = adamwErrors({
      ...settings,
      parameter: (before.master ?? before.parameter)[at],
      firstMoment: before.firstMoment[at],
      secondMoment: before.secondMoment[at],
      gradient: gradient[gradientAt],
    });
    for (const name of ["parameter", "firstMoment", "secondMoment"] as const) errors[name][at] = bound[name];
  });
  context.compare("firstMoment", after.firstMoment, state.firstMoment, errors.firstMoment);
  context.compare("secondMoment", after.secondMoment, state.secondMoment, errors.secondMoment);
  if (after.master === undefined) {
    context.compare("parameter", after.parameter, state.parameter, errors.parameter, dtype);
  } else {
    context.compare("master", after.master, state.parameter, errors.parameter);
    checkSameBits("parameter, the master rounded", after.stored, encode(after.master, dtype));
  }
  for (let at = 0; at < size; at++) {
    if (used.has(at)) continue;
    for (const name of ["stored", "firstMoment", "secondMoment"] as const) {
      if (Object.is(after[name][at], before[name][at])) continue;
      checkEqual(`${name}[${at}], of a row that is not used,`, after[name][at], before[name][at]);
    }
  }
}

/** Rows in use, ascending, each once; what follows them is no row at all, and must not be looked at. */
function usedRows(
  context: CaseContext,
  rows: number,
  compact: NonNullable<AdamwVariant["compact"]>,
  count: number,
): Int32Array {
  const ids = new Int32Array(compact.capacity).fill(0x7fffffff);
  ids.set(context.inputs.distinctIds(1, count, rows).sort());
  if (compact.outside) {
    const [justBelow, justAbove, furthestAbove, furthestBelow] = outsideOf(rows);
    ids.set([furthestBelow, justBelow]);
    ids.set([justAbove, furthestAbove], count - 2);
  }
  return ids;
}

/** Calls `visit` with every element that the step changes, and the element of its gradient. */
function forEachElement({ gradient, compact }: Step, visit: (at: number, gradientAt: number) => void): void {
  if (compact === undefined) {
    for (let at = 0; at < gradient.length; at++) visit(at, at);
    return;
  }
  for (let r = 0; r < compact.count; r++) {
    if (compact.ids[r] < 0 || compact.ids[r] >= compact.rows) continue;
    for (let column = 0; column < compact.columns; column++) {
      visit(compact.ids[r] * compact.columns + column, r * compact.columns + column);
    }
  }
}
