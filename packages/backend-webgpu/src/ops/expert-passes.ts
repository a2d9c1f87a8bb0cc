import type { DeviceMemory } from "../device-memory.js";
import { flag, type OpContext, type Operand, vectorType, type Window } from "../op-context.js";

/** What the passes over a table share. */
export interface ExpertsSize {
  readonly tokens: number;
  readonly topK: number;
  readonly hiddenSize: number;
  readonly numExperts: number;
}

/** `dots[t, j] = states[t] . table[ids[t, j]]`, window by window of the table. */
export function expertDots(
  context: OpContext,
  size: ExpertsSize,
  call: { states: Operand; table: DeviceMemory; ids: DeviceMemory; dots: Operand; slot: number },
): void {
  const { topK, hiddenSize, numExperts } = size;
  const pairs = size.tokens * topK;
  const ids = context.whole("ids", call.ids);
  const lanes = hiddenSize <= 64 ? 8 : 32;
  context.windows(call.table).forEach(({ binding, low, high }, n) => {
    context.launch({
      kernel: "expert_dots",
      types: {
        states: vectorType(call.states.dtype, hiddenSize),
        table: vectorType(tableType(call.table), hiddenSize),
      },
      constants: { LANES: lanes },
      params: [pairs, topK, hiddenSize, numExperts, low, high, flag(n > 0), call.slot],
      bindings: [call.states.binding, binding, ids, call.dots.binding, context.idErrors],
      workgroups: Math.ceil((pairs * lanes) / 128),
    });
  });
}

export interface RowsSum {
  readonly table: DeviceMemory;
  readonly ids: DeviceMemory;
  /** [T, k]: the coefficients, or with `weights` what goes through the activation first. */
  readonly dots: Operand;
  readonly weights?: DeviceMemory;
  /** What `dots` go through where there are `weights`. */
  readonly activation: number;
  readonly addend?: Operand;
  /** f32, or of an even row length. */
  readonly output: Operand;
  readonly accumulate: boolean;
}

/**
 * `output[t] (+)= addend[t] + sum_j c_j table[ids[t, j]]`, window by window of the table. A 16-bit output of several
 * windows is summed in f32 first, since it is to be rounded once.
 */
export function expertRowsSum(context: OpContext, size: ExpertsSize, sum: RowsSum): void {
  const windows = context.windows(sum.table);
  const last = windows.length - 1;
  const direct = last === 0 || sum.output.dtype === "f32";
  const partial = direct ? sum.output : context.floats("sums", size.tokens * size.hiddenSize);
  windows.forEach((window, n) => {
    const isLast = n === last;
    launchRowsSum(context, size, window, {
      ...sum,
      addend: n === 0 ? sum.addend : !direct && isLast ? partial : undefined,
      output: isLast ? sum.output : partial,
      accumulate: n === 0 ? sum.accumulate : direct || !isLast,
    });
  });
}

function launchRowsSum(context: OpContext, size: ExpertsSize, window: Window, sum: RowsSum): void {
  const { tokens, topK, hiddenSize, numExperts } = size;
  const { addend, output, weights } = sum;
  const across = Math.min(64, Math.max(8, 2 ** Math.ceil(Math.log2(hiddenSize / 4))));
  context.launch({
    kernel: "expert_rows_sum",
    types: {
      table: vectorType(tableType(sum.table), hiddenSize),
      addend: addend?.dtype ?? "f32",
      output: output.dtype,
    },
    constants: { ACTIVATE: flag(weights), ACROSS: across },
    params: [
      tokens,
      topK,
      hiddenSize,
      numExperts,
      window.low,
      window.high,
      flag(sum.accumulate),
      flag(addend),
      sum.activation,
    ],
    bindings: [
      window.binding,
      context.whole("ids", sum.ids),
      sum.dots.binding,
      weights ? context.whole("weights", weights) : context.absent,
      addend?.binding ?? context.absent,
      output.binding,
    ],
    workgroups: tokens * Math.ceil(hiddenSize / (4 * across)),
  });
}

function tableType(table: DeviceMemory): "f32" | "f16" | "bf16" {
  return table.dtype as "f32" | "f16" | "bf16";
}
