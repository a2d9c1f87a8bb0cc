import type { AdamwCall } from "@flash-moe/core";
import type { Binding, DeviceMemory } from "../device-memory.js";
import { flag, floatBits, type OpContext } from "../op-context.js";

/** A range of elements in which each of several buffers lies in one binding. */
interface Range {
  readonly low: number;
  readonly high: number;
  readonly bindings: readonly Binding[];
}

/** One launch, or one per range where buffers are split; compact, one before it for the grid. */
export function adamw(call: AdamwCall<DeviceMemory>, context: OpContext): void {
  const { rows, columns, parameter, master, firstMoment, secondMoment, gradient, compact } = call;
  const width = parameter.dtype === "f32" ? 1 : 2;
  const count = compact ? context.whole("compact.count", compact.count) : context.absent;
  // The count is looked at even where no row can be used.
  const grid = compact
    ? usedRowsGrid(context, compact.capacity, count, wordsPerRow(columns, width))
    : undefined;
  if (rows * columns === 0 || compact?.capacity === 0) return;
  const ids = compact ? context.whole("compact.ids", compact.ids) : context.absent;
  const slot = compact ? idsSlot(context, rows) : 0;
  const updated = master === undefined ? [] : [master];
  const inPlace = [parameter, firstMoment, secondMoment, ...updated];
  const launch = (range: Range, from: Range): void => {
    const [p, first, second, ownMaster = context.absentOutput] = range.bindings;
    context.launch({
      kernel: "adamw",
      types: { parameter: parameter.dtype as "f32" | "f16" | "bf16" },
      constants: { COMPACT: flag(compact), WIDTH: width },
      params: [
        rows,
        columns,
        compact?.capacity ?? 0,
        range.low,
        range.high,
        from.low,
        from.high,
        flag(master),
        slot,
        ...settings(call),
      ],
      bindings: [p, ownMaster, first, second, from.bindings[0], ids, count, context.idErrors],
      workgroups: Math.ceil(invocations(call, range, width) / 256),
      grid,
    });
  };
  if (compact === undefined) {
    for (const range of ranges([...inPlace, gradient])) {
      const own = { ...range, bindings: range.bindings.slice(-1) };
      launch({ ...range, bindings: range.bindings.slice(0, -1) }, own);
    }
    return;
  }
  for (const range of ranges(inPlace)) for (const from of ranges([gradient])) launch(range, from);
}

function invocations({ columns, compact }: AdamwCall<DeviceMemory>, range: Range, width: number): number {
  if (compact === undefined) return Math.ceil((range.high - range.low) / width);
  return compact.capacity * wordsPerRow(columns, width);
}

/** A row of an odd length may touch one word more than fit it. */
function wordsPerRow(columns: number, width: number): number {
  return Math.ceil(columns / width) + width - 1;
}

/** The grid of the rows that are used: how many they are stays on the device. */
function usedRowsGrid(context: OpContext, capacity: number, count: Binding, threadsPerRow: number): Binding {
  const { op } = context;
  const slot = context.idErrorSlot(
    `count of ${capacity}`,
    (_, value) => `${op}: compact.count holds ${value}; takes 0 to ${capacity}, the capacity`,
  );
  const grid = context.scratch("the grid of the used rows", 12);
  context.launch({
    kernel: "used_rows_grid",
    params: [capacity, threadsPerRow, slot],
    bindings: [count, grid, context.idErrors],
    workgroups: 1,
  });
  return grid;
}

/** In double precision, rounded once: 1 - beta2 in f32 would be off by 1e-5. */
function settings(call: AdamwCall<DeviceMemory>): number[] {
  const { step, learningRate, beta1, beta2, epsilon, weightDecay, gradientScale } = call;
  return [
    gradientScale,
    1 - learningRate * weightDecay,
    beta1,
    1 - beta1,
    beta2,
    1 - beta2,
    learningRate / (1 - beta1 ** step),
    1 / Math.sqrt(1 - beta2 ** step),
    epsilon,
  ].map(floatBits);
}

/** Cuts buffers of one length wherever one of them goes on in another binding. */
function ranges(buffers: readonly DeviceMemory[]): Range[] {
  const cuts = new Set<number>();
  for (const { parts, length } of buffers) {
    for (const { start } of parts) cuts.add(start);
    cuts.add(length);
  }
  const sorted = [...cuts].sort((a, b) => a - b);
  return sorted.slice(0, -1).map((low, n) => {
    const high = sorted[n + 1];
    return { low, high, bindings: buffers.map((memory) => rangeBinding(memory, low, high)) };
  });
}

/** Offsets are multiples of 256 bytes, whichever buffer made the cut: see `splitRanges`. */
function rangeBinding({ dtype, parts }: DeviceMemory, low: number, high: number): Binding {
  const bytes = dtype === "f32" ? 4 : 2;
  const part = parts.find(({ start, length }) => low >= start && low < start + length)!;
  return {
    buffer: part.buffer,
    offset: part.byteOffset + (low - part.start) * bytes,
    size: Math.ceil(((high - low) * bytes) / 4) * 4,
  };
}

function idsSlot(context: OpContext, rows: number): number {
  const { op } = context;
  return context.idErrorSlot(
    `ids of ${rows}`,
    (entry, id) => `${op}: compact.ids[${entry}] is ${id}; takes row ids from 0 to ${rows - 1}`,
  );
}
