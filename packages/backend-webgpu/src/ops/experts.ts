import type { ExpertsBackwardCall, ExpertsForwardCall } from "@flash-moe/core";
import { type Binding, bindingOf, type DeviceMemory } from "../device-memory.js";
import { flag, type OpContext, type Operand, vectorType } from "../op-context.js";
import { activationCode } from "./activations.js";
import { describeExpertId } from "./expert-ids.js";
import { sortByExpert, usedExperts } from "./expert-major.js";
import { expertDots, expertRowsSum } from "./expert-passes.js";
import { pack } from "./linear.js";

/** Two launches where the tables fit one binding each: inner products, then the weighted sums of rows. */
export function expertsForward(call: ExpertsForwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK } = call;
  if (tokens === 0) return;
  const dots = context.floats("inner products", tokens * topK);
  const slot = describeExpertId(context, topK, numExperts);
  const states = context.operand("hiddenStates", call.hiddenStates);
  expertDots(context, call, { states, table: call.down, ids: call.ids, dots, slot });

  const output = context.operand("output", call.output);
  // Two rows of an odd length share a word of a 16-bit output.
  const packed = output.dtype !== "f32" && hiddenSize % 2 !== 0;
  const sums = packed ? context.floats("the output before packing", tokens * hiddenSize) : output;
  expertRowsSum(context, call, {
    table: call.up,
    ids: call.ids,
    dots,
    weights: call.weights,
    activation: activationCode(call.activation),
    addend: call.addend && context.operand("addend", call.addend),
    output: sums,
    accumulate: false,
  });
  if (packed) pack(context, sums, output, tokens * hiddenSize);
}

export function expertsBackward(call: ExpertsBackwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK, gradHiddenStates, gradWeights, gradTables } = call;
  const { accumulate = [] } = call;
  const addsToTables = accumulate.includes("gradTables");
  if (gradTables?.layout === "dense" && !addsToTables) {
    for (const table of [gradTables.down, gradTables.up]) clearAll(context, table);
  }
  if (tokens === 0) {
    if (gradTables?.layout === "compact") clearAll(context, gradTables.count);
    return;
  }
  const pairs = tokens * topK;
  const slot = describeExpertId(context, topK, numExperts);
  const x = context.operand("hiddenStates", call.hiddenStates);
  const d = context.operand("gradOutput", call.gradOutput);
  // What the rows of d, and those of x and `down`, are multiplied by.
  const ofUp = context.floats("inner products with down", pairs);
  const ofDown = context.floats("inner products with up", pairs);
  expertDots(context, call, { states: x, table: call.down, ids: call.ids, dots: ofUp, slot });
  expertDots(context, call, { states: d, table: call.up, ids: call.ids, dots: ofDown, slot });
  context.launch({
    kernel: "expert_pair_grad",
    params: [
      pairs,
      flag(accumulate.includes("gradWeights")),
      flag(gradWeights),
      numExperts,
      activationCode(call.activation),
    ],
    bindings: [
      ofUp.binding,
      ofDown.binding,
      context.whole("weights", call.weights),
      context.whole("ids", call.ids),
      gradWeights ? context.whole("gradWeights", gradWeights) : context.absentOutput,
    ],
    workgroups: Math.ceil(pairs / 256),
  });
  if (gradHiddenStates !== undefined) {
    expertRowsSum(context, call, {
      table: call.down,
      ids: call.ids,
      dots: ofDown,
      activation: 0,
      output: context.operand("gradHiddenStates", gradHiddenStates),
      accumulate: accumulate.includes("gradHiddenStates"),
    });
  }
  if (gradTables === undefined) return;
  const compact = gradTables.layout === "compact";
  if (!(compact || gradTables.down || gradTables.up)) return;
  const sorted = sortByExpert(context, call.ids, pairs, numExperts);
  const starts = compact
    ? usedExperts(context, sorted, pairs, numExperts, {
        ids: context.whole("gradTables.ids", gradTables.ids),
        count: context.whole("gradTables.count", gradTables.count),
      })
    : context.absent;
  const size = { pairs, topK, hiddenSize, numExperts, compact, accumulate: addsToTables };
  if (gradTables.down)
    tableGradient(context, size, { sorted, starts, of: ofDown, states: x }, gradTables.down);
  if (gradTables.up) tableGradient(context, size, { sorted, starts, of: ofUp, states: d }, gradTables.up);
}

interface TableGradientSize {
  readonly pairs: number;
  readonly topK: number;
  readonly hiddenSize: number;
  readonly numExperts: number;
  readonly compact: boolean;
  readonly accumulate: boolean;
}

function tableGradient(
  context: OpContext,
  size: TableGradientSize,
  from: { sorted: Binding; starts: Binding; of: Operand; states: Operand },
  gradient: DeviceMemory,
): void {
  const { pairs, topK, hiddenSize, numExperts, accumulate } = size;
  const tile = tileSize(pairs);
  const tiles = Math.ceil(pairs / tile);
  const workgroups = tiles * Math.ceil(hiddenSize / 256);
  const constants = { COMPACT: flag(size.compact) };
  const partials =
    tiles > 1 ? context.scratch("sums of shared experts", 8 * tiles * hiddenSize) : context.absentOutput;
  for (const { binding, low, high } of context.windows(gradient)) {
    context.launch({
      kernel: "expert_table_grad",
      types: { states: vectorType(from.states.dtype, hiddenSize) },
      constants,
      params: [pairs, topK, hiddenSize, numExperts, tile, low, high, flag(accumulate)],
      bindings: [from.sorted, from.starts, from.of.binding, from.states.binding, binding, partials],
      workgroups,
    });
    if (tiles === 1) continue;
    context.launch({
      kernel: "expert_table_combine",
      constants,
      params: [pairs, hiddenSize, numExperts, tile, low, high, flag(accumulate)],
      bindings: [from.sorted, from.starts, partials, binding],
      workgroups,
    });
  }
}

/** Pairs that one workgroup walks: fewer while there are few, to keep a device busy. */
function tileSize(pairs: number): number {
  return pairs <= 65_536 ? 64 : 256;
}

function clearAll(context: OpContext, memory: DeviceMemory | undefined): void {
  for (const part of memory?.parts ?? []) context.clear(bindingOf(memory!, part));
}
