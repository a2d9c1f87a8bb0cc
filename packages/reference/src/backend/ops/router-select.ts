import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "@flash-moe/core";
import {
  routerSelectBackward as oracleBackward,
  routerSelectForward as oracleForward,
} from "../../oracle/index.js";
import { checkExpertIds } from "../check-ids.js";
import { decodeToFloat64 } from "../decode.js";
import { encodeInto, storeOutput } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import { float32Data, int32Data, type Storage } from "../storage.js";

export function routerSelectForward(
  call: RouterSelectForwardCall<Storage>,
  { scratch }: OpContext,
): Computation {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  const ranks = Math.min(keysX, topK) + Math.min(keysY, topK);
  // The ids, the weights twice for one token, and the rankings of its axes: at most twice k and a bit each.
  scratch.count(12 * tokens * topK + 8 * topK + 48 * ranks + 1024);
  return () => {
    const { ids, weights } = oracleForward({
      tokens,
      keysX,
      keysY,
      topK,
      normalizeWeights,
      logits: float32Data(call.logits),
    });
    int32Data(call.ids).set(ids);
    encodeInto(call.weights, weights);
  };
}

export function routerSelectBackward(
  call: RouterSelectBackwardCall<Storage>,
  context: OpContext,
): Computation {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  const { scratch } = context;
  const ids = int32Data(call.ids);
  const gradWeights = decodeToFloat64(call.gradWeights, scratch);
  scratch.count(8 * (tokens * (keysX + keysY) + topK));
  return () => {
    checkExpertIds("routerSelectBackward", ids, topK, keysX * keysY, context);
    const gradLogits = oracleBackward({
      tokens,
      keysX,
      keysY,
      topK,
      normalizeWeights,
      logits: float32Data(call.logits),
      ids,
      gradWeights,
    });
    storeOutput(call.gradLogits, gradLogits, call.accumulate?.includes("gradLogits") ?? false);
  };
}
