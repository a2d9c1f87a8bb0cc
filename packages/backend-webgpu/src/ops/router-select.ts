import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import { flag, type OpContext } from "../op-context.js";
import { describeExpertId } from "./expert-ids.js";

/** Up to this k the candidates a * b <= k fit workgroup memory. */
const staircaseLimit = 64;
/** Bytes that the lists of the tokens of one launch may take, unless one token needs more. */
const scratchBytes = 32 * 2 ** 20;

/** By the shape alone, since the order of sums depends on it. */
function threadsPerToken(keysX: number, keysY: number): number {
  return Math.max(keysX, keysY) <= 256 ? 64 : 256;
}

export function routerSelectForward(call: RouterSelectForwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  if (tokens === 0) return;
  const bindings = [
    context.whole("logits", call.logits),
    context.whole("ids", call.ids),
    context.whole("weights", call.weights),
  ];
  if (topK <= staircaseLimit) {
    context.launch({
      kernel: "router_staircase",
      constants: { THREADS: threadsPerToken(keysX, keysY) },
      params: [tokens, keysX, keysY, topK, flag(normalizeWeights)],
      bindings,
      workgroups: tokens,
    });
    return;
  }
  const sizes = [keysX, keysY, topK].map((count) => 2 ** Math.ceil(Math.log2(count)));
  const tokenWords = sizes[0] + sizes[1] + sizes[2] + Math.min(keysX, topK);
  const tokenBytes = 8 * tokenWords;
  const together = Math.min(tokens, Math.max(1, Math.floor(scratchBytes / tokenBytes)));
  const lists = context.scratch("sorted keys and pairs", together * tokenBytes);
  for (let first = 0; first < tokens; first += together) {
    const count = Math.min(together, tokens - first);
    context.launch({
      kernel: "router_bisect",
      constants: { THREADS: threadsPerToken(keysX, keysY) },
      params: [first, count, keysX, keysY, topK, flag(normalizeWeights), ...sizes, tokenWords],
      bindings: [...bindings, lists],
      workgroups: count,
    });
  }
}

export function routerSelectBackward(call: RouterSelectBackwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  if (tokens === 0) return;
  const slot = describeExpertId(context, topK, keysX * keysY);
  context.launch({
    kernel: "router_grad",
    constants: { THREADS: threadsPerToken(keysX, keysY) },
    params: [
      tokens,
      keysX,
      keysY,
      topK,
      flag(normalizeWeights),
      flag(call.accumulate?.includes("gradLogits")),
      slot,
    ],
    bindings: [
      context.whole("logits", call.logits),
      context.whole("ids", call.ids),
      context.whole("gradWeights", call.gradWeights),
      context.whole("gradLogits", call.gradLogits),
      context.idErrors,
    ],
    workgroups: tokens,
  });
}
