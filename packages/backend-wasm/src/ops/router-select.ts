import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { routerTime, tasksOf, thingsPerTask } from "../partition.js";
import type { WasmBuffer } from "../wasm-buffer.js";
import { checkOfIds } from "./check-ids.js";

export function routerSelectForward(call: RouterSelectForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, keysX, keysY, topK } = call;
  const time = routerTime(keysX + keysY, topK);
  const perTask = thingsPerTask(tokens, time);
  context.step("routerSelect", tasksOf(tokens, perTask), tokens * time, [
    tokens,
    keysX,
    keysY,
    topK,
    call.normalizeWeights,
    call.logits.address,
    call.ids.address,
    call.weights.address,
    perTask,
    context.threadScratch(context.sizes.routerSelectScratchBytes(keysX, keysY, topK)),
  ]);
}

export function routerSelectBackward(call: RouterSelectBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, keysX, keysY, topK, ids } = call;
  const time = routerTime(keysX + keysY, topK);
  const perTask = thingsPerTask(tokens, time);
  context.step(
    "routerSelectBackward",
    tasksOf(tokens, perTask),
    tokens * time,
    [
      tokens,
      keysX,
      keysY,
      topK,
      call.normalizeWeights,
      call.logits.address,
      ids.address,
      call.gradWeights.address,
      call.gradLogits.address,
      call.accumulate?.includes("gradLogits") ?? false,
      perTask,
      context.threadScratch(context.sizes.routerBackwardScratchBytes(keysX, keysY, topK)),
    ],
    checkOfIds("routerSelectBackward", ids, topK, keysX * keysY),
  );
}
