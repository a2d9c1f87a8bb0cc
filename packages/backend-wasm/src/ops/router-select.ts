import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import type { WasmBuffer } from "../wasm-buffer.js";
import { reportWrongId } from "./check-ids.js";

export function routerSelectForward(
  call: RouterSelectForwardCall<WasmBuffer>,
  { kernels, scratch }: OpContext,
): void {
  const { tokens, keysX, keysY, topK } = call;
  kernels.routerSelect(
    tokens,
    keysX,
    keysY,
    topK,
    call.normalizeWeights,
    call.logits.address,
    call.ids.address,
    call.weights.address,
    scratch(kernels.routerSelectScratchBytes(keysX, keysY, topK)),
  );
}

export function routerSelectBackward(call: RouterSelectBackwardCall<WasmBuffer>, context: OpContext): void {
  const { kernels, scratch } = context;
  const { tokens, keysX, keysY, topK, ids } = call;
  const wrong = kernels.routerSelectBackward(
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
    scratch(kernels.routerBackwardScratchBytes(keysX, keysY, topK)),
  );
  reportWrongId("routerSelectBackward", wrong, ids, topK, keysX * keysY, context);
}
