import type { RouterSelectBackwardCall, RouterSelectForwardCall } from "../ops.js";
import { type CallChecker, f32Only, i32Only } from "./call-checker.js";

function validateShape(call: RouterSelectForwardCall | RouterSelectBackwardCall, check: CallChecker): void {
  const { tokens, keysX, keysY, topK } = call;
  const { maxKeysPerAxis } = check.backend.capabilities;
  check.size("tokens", tokens);
  check.size("keysX", keysX, 1, maxKeysPerAxis);
  check.size("keysY", keysY, 1, maxKeysPerAxis);
  check.product("keysX * keysY", keysX * keysY);
  check.size("topK", topK, 1, keysX * keysY);
  check.product("tokens * topK", tokens * topK);
  check.flag("normalizeWeights", call.normalizeWeights);
  check.input("logits", call.logits, tokens * (keysX + keysY), f32Only);
}

export function validateRouterSelectForward(call: RouterSelectForwardCall, check: CallChecker): void {
  validateShape(call, check);
  check.output("ids", call.ids, call.tokens * call.topK, i32Only);
  check.output("weights", call.weights, call.tokens * call.topK, f32Only);
}

export function validateRouterSelectBackward(call: RouterSelectBackwardCall, check: CallChecker): void {
  validateShape(call, check);
  const { tokens, topK } = call;
  check.accumulate(call.accumulate, ["gradLogits"]);
  check.input("ids", call.ids, tokens * topK, i32Only);
  check.input("gradWeights", call.gradWeights, tokens * topK, f32Only);
  check.output("gradLogits", call.gradLogits, tokens * (call.keysX + call.keysY), f32Only);
}
