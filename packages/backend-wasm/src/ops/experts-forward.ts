import type { ExpertsForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { expertsTime, tasksOf, thingsPerTask } from "../partition.js";
import { activationNumber, dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";
import { checkOfIds } from "./check-ids.js";

export function expertsForward(call: ExpertsForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, numExperts, topK, ids, addend, output } = call;
  const perTask = thingsPerTask(tokens, expertsTime(topK, hiddenSize));
  context.step(
    "expertsForward",
    tasksOf(tokens, perTask),
    expertsTime(tokens * topK, hiddenSize),
    [
      dtypeNumber(call.down),
      tokens,
      hiddenSize,
      numExperts,
      topK,
      activationNumber(call.activation),
      call.hiddenStates.address,
      call.down.address,
      call.up.address,
      ids.address,
      call.weights.address,
      addend === undefined ? 0 : dtypeNumber(addend),
      addend?.address ?? 0,
      dtypeNumber(output),
      output.address,
      perTask,
      context.threadScratch(context.sizes.expertsScratchBytes(topK, hiddenSize)),
    ],
    checkOfIds("expertsForward", ids, topK, numExperts),
  );
}
