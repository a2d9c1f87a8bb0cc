import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "../ops.js";
import { type CallChecker, f32Only, i32Only } from "./call-checker.js";

/** What forward and backward share. */
function validateShape<H>(call: RouterSelectForwardCall | RouterSelectBackwardCall, check: CallChecker<H>) {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  const { maxKeysPerAxis } = check.backend.capabilities;
  check.size("tokens", tokens);
  check.size("keysX", keysX, 1, maxKeysPerAxis);
  check.size("keysY", keysY, 1, maxKeysPerAxis);
  check.product("keysX * keysY", keysX * keysY);
  check.size("topK", topK, 1, keysX * keysY);
  check.product("tokens * topK", tokens * topK);
  check.flag("normalizeWeights", normalizeWeights);
  return {
    tokens,
    keysX,
    keysY,
    topK,
    normalizeWeights,
    logits: check.input("logits", call.logits, tokens * (keysX + keysY), f32Only),
  };
}

export function validateRouterSelectForward<H>(
  call: RouterSelectForwardCall,
  check: CallChecker<H>,
): RouterSelectForwardCall<H> {
  return Object.assign(validateShape(call, check), {
    ids: check.output("ids", call.ids, call.tokens * call.topK, i32Only),
    weights: check.output("weights", call.weights, call.tokens * call.topK, f32Only),
  });
}

export function validateRouterSelectBackward<H>(
  call: RouterSelectBackwardCall,
  check: CallChecker<H>,
): RouterSelectBackwardCall<H> {
  const shape = validateShape(call, check);
  const { tokens, topK, accumulate } = call;
  check.accumulate(accumulate, ["gradLogits"]);
  return Object.assign(shape, {
    ids: check.input("ids", call.ids, tokens * topK, i32Only),
    gradWeights: check.input("gradWeights", call.gradWeights, tokens * topK, f32Only),
    gradLogits: check.output("gradLogits", call.gradLogits, tokens * (call.keysX + call.keysY), f32Only),
    accumulate,
  });
}
