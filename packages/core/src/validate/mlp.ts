import { activations } from "../activation.js";
import type { MlpBackwardCall, MlpForwardCall } from "../ops.js";
import { type CallChecker, f32Only } from "./call-checker.js";

/** What forward and backward share. */
function validateShape<H>(call: MlpForwardCall | MlpBackwardCall, check: CallChecker<H>) {
  const { tokens, hiddenSize, intermediateSize, activation } = call;
  check.size("tokens", tokens);
  check.size("hiddenSize", hiddenSize, 1);
  check.size("intermediateSize", intermediateSize, 1);
  check.oneOf("activation", activation, activations);
  const storage = [check.storage("hiddenStates", call.hiddenStates)];
  return {
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    hiddenStates: check.input("hiddenStates", call.hiddenStates, tokens * hiddenSize, storage),
    gate: check.input("gate", call.gate, intermediateSize * hiddenSize, storage),
    up: check.input("up", call.up, intermediateSize * hiddenSize, storage),
    down: check.input("down", call.down, hiddenSize * intermediateSize, storage),
  };
}

export function validateMlpForward<H>(call: MlpForwardCall, check: CallChecker<H>): MlpForwardCall<H> {
  const shape = validateShape(call, check);
  const states = call.tokens * call.hiddenSize;
  const accepted = ["f32", call.hiddenStates.dtype] as const;
  return Object.assign(shape, {
    addend: check.optionalInput("addend", call.addend, states, accepted),
    output: check.output("output", call.output, states, accepted),
  });
}

export function validateMlpBackward<H>(call: MlpBackwardCall, check: CallChecker<H>): MlpBackwardCall<H> {
  const shape = validateShape(call, check);
  const { tokens, hiddenSize, intermediateSize, accumulate } = call;
  const states = tokens * hiddenSize;
  const weights = intermediateSize * hiddenSize;
  check.accumulate(accumulate, ["gradHiddenStates", "gradGate", "gradUp", "gradDown"]);
  return Object.assign(shape, {
    gradOutput: check.input("gradOutput", call.gradOutput, states, [call.hiddenStates.dtype]),
    gradHiddenStates: check.optionalOutput("gradHiddenStates", call.gradHiddenStates, states, f32Only),
    gradGate: check.optionalOutput("gradGate", call.gradGate, weights, f32Only),
    gradUp: check.optionalOutput("gradUp", call.gradUp, weights, f32Only),
    gradDown: check.optionalOutput("gradDown", call.gradDown, weights, f32Only),
    accumulate,
  });
}
