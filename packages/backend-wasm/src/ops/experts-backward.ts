import type { ExpertsBackwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { elementTime, expertsTime, sortTime, tasksOf, thingsPerTask } from "../partition.js";
import { activationNumber, dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";
import { checkOfIds } from "./check-ids.js";

export function expertsBackward(call: ExpertsBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK, ids, gradHiddenStates, gradWeights, gradTables } = call;
  const pairs = tokens * topK;
  const accumulates = (name: "gradHiddenStates" | "gradWeights" | "gradTables"): boolean =>
    call.accumulate?.includes(name) ?? false;
  const wantsTable = gradTables?.down !== undefined || gradTables?.up !== undefined;
  const wantsStates = wantsTable || gradHiddenStates !== undefined || gradWeights !== undefined;
  const check = checkOfIds("expertsBackward", ids, topK, numExperts);

  const x = wantsStates ? decoded(call.hiddenStates, context) : 0;
  const d = wantsStates ? decoded(call.gradOutput, context) : 0;
  const downCoefficients = wantsTable ? context.scratch(pairs * 4) : 0;
  const upCoefficients = wantsTable ? context.scratch(pairs * 4) : 0;
  if (wantsStates) {
    const perTask = thingsPerTask(tokens, expertsTime(topK, hiddenSize, 1.5));
    context.step(
      "expertsBackward",
      tasksOf(tokens, perTask),
      expertsTime(pairs, hiddenSize, 1.5),
      [
        dtypeNumber(call.down),
        tokens,
        hiddenSize,
        numExperts,
        topK,
        activationNumber(call.activation),
        x,
        call.down.address,
        call.up.address,
        ids.address,
        call.weights.address,
        d,
        gradHiddenStates?.address ?? 0,
        accumulates("gradHiddenStates"),
        gradWeights?.address ?? 0,
        accumulates("gradWeights"),
        downCoefficients,
        upCoefficients,
        perTask,
        context.threadScratch(context.sizes.expertsScratchBytes(topK, hiddenSize)),
      ],
      check,
    );
  } else {
    const perTask = thingsPerTask(pairs, elementTime.convert);
    const time = pairs * elementTime.convert;
    context.step(
      "firstWrongId",
      tasksOf(pairs, perTask),
      time,
      [pairs, numExperts, ids.address, perTask],
      check,
    );
  }
  if (gradTables === undefined) return;

  const isCompact = gradTables.layout === "compact";
  const grouped = context.scratch(pairs * 4);
  const used = isCompact ? gradTables.ids.address : context.scratch(pairs * 4);
  const rows = isCompact ? gradTables.count.address : context.scratch(4);
  const starts = context.scratch((pairs + 1) * 4);
  context.step("groupPairs", 1, pairs * sortTime, [
    pairs,
    ids.address,
    numExperts,
    grouped,
    used,
    starts,
    rows,
    context.scratch(context.sizes.groupPairsScratchBytes(pairs)),
  ]);
  const tables = [gradTables.down, gradTables.up].filter((table) => table !== undefined);
  if (!isCompact && !accumulates("gradTables")) {
    // Rows that no pair uses.
    for (const { address, length } of tables) context.clear(address, length * 4);
  }
  if (tables.length === 0) return;
  const perTask = thingsPerTask(pairs, expertsTime(1, hiddenSize, 0.5));
  const tasks = tasksOf(pairs, perTask);
  const time = expertsTime(pairs, hiddenSize, 0.5);
  context.step("expertsTableGradient", tables.length * tasks, tables.length * time, [
    hiddenSize,
    topK,
    x,
    downCoefficients,
    gradTables.down?.address ?? 0,
    d,
    upCoefficients,
    gradTables.up?.address ?? 0,
    grouped,
    used,
    starts,
    rows,
    !isCompact,
    accumulates("gradTables"),
    perTask,
    tasks,
    context.threadScratch(hiddenSize * 4),
  ]);
}

/** Where the values of a buffer are in f32: its own memory, or scratch and a step that fills it. */
function decoded(buffer: WasmBuffer, context: OpContext): number {
  if (buffer.dtype === "f32") return buffer.address;
  const { length } = buffer;
  const target = context.scratch(length * 4);
  const perTask = thingsPerTask(length, elementTime.convert, 16);
  const time = length * elementTime.convert;
  const args = [length, dtypeNumber(buffer), buffer.address, target, perTask] as const;
  context.step("decodeAll", tasksOf(length, perTask), time, [...args]);
  return target;
}
