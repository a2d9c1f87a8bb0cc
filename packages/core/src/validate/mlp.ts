import { activations } from "../activation.js";
import type { DType } from "../dtype.js";
import type { MlpBackwardCall, MlpForwardCall } from "../ops.js";
import { type CallChecker, f32Only } from "./call-checker.js";

/** Checks what forward and backward share and returns the storage dtype. */
function validateShape(call: MlpForwardCall | MlpBackwardCall, check: CallChecker): DType {
  const { tokens, hiddenSize, intermediateSize } = call;
  check.size("tokens", tokens);
  check.size("hiddenSize", hiddenSize, 1);
  check.size("intermediateSize", intermediateSize, 1);
  check.oneOf("activation", call.activation, activations);
  const storage = check.storage("hiddenStates", call.hiddenStates);
  check.input("hiddenStates", call.hiddenStates, tokens * hiddenSize, [storage]);
  check.input("gate", call.gate, intermediateSize * hiddenSize, [storage]);
  check.input("up", call.up, intermediateSize * hiddenSize, [storage]);
  check.input("down", call.down, hiddenSize * intermediateSize, [storage]);
  return storage;
}

export function validateMlpForward(call: MlpForwardCall, check: CallChecker): void {
  const storage = validateShape(call, check);
  const states = call.tokens * call.hiddenSize;
  if (call.addend !== undefined) check.input("addend", call.addend, states, ["f32", storage]);
  check.output("output", call.output, states, ["f32", storage]);
}

export function validateMlpBackward(call: MlpBackwardCall, check: CallChecker): void {
  const storage = validateShape(call, check);
  const { tokens, hiddenSize, intermediateSize } = call;
  const weights = intermediateSize * hiddenSize;
  check.accumulate(call.accumulate, ["gradHiddenStates", "gradGate", "gradUp", "gradDown"]);
  check.input("gradOutput", call.gradOutput, tokens * hiddenSize, [storage]);
  if (call.gradHiddenStates !== undefined) {
    check.output("gradHiddenStates", call.gradHiddenStates, tokens * hiddenSize, f32Only);
  }
  if (call.gradGate !== undefined) check.output("gradGate", call.gradGate, weights, f32Only);
  if (call.gradUp !== undefined) check.output("gradUp", call.gradUp, weights, f32Only);
  if (call.gradDown !== undefined) check.output("gradDown", call.gradDown, weights, f32Only);
}
