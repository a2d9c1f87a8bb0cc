import { activations } from "../activation.js";
import type { DType } from "../dtype.js";
import type { ExpertsBackwardCall, ExpertsForwardCall } from "../ops.js";
import { type CallChecker, f32Only, i32Only } from "./call-checker.js";

/** Checks what forward and backward share and returns the storage dtype. */
function validateShape(call: ExpertsForwardCall | ExpertsBackwardCall, check: CallChecker): DType {
  const { tokens, hiddenSize, numExperts, topK } = call;
  check.size("tokens", tokens);
  check.size("hiddenSize", hiddenSize, 1);
  check.size("numExperts", numExperts, 1);
  // Not bounded by numExperts: ids from outside may repeat.
  check.size("topK", topK, 1);
  check.product("tokens * topK", tokens * topK);
  check.oneOf("activation", call.activation, activations);
  const storage = check.storage("hiddenStates", call.hiddenStates);
  check.input("hiddenStates", call.hiddenStates, tokens * hiddenSize, [storage]);
  check.input("down", call.down, numExperts * hiddenSize, [storage]);
  check.input("up", call.up, numExperts * hiddenSize, [storage]);
  check.input("ids", call.ids, tokens * topK, i32Only);
  check.input("weights", call.weights, tokens * topK, f32Only);
  return storage;
}

export function validateExpertsForward(call: ExpertsForwardCall, check: CallChecker): void {
  const storage = validateShape(call, check);
  const states = call.tokens * call.hiddenSize;
  if (call.addend !== undefined) check.input("addend", call.addend, states, ["f32", storage]);
  check.output("output", call.output, states, ["f32", storage]);
}

export function validateExpertsBackward(call: ExpertsBackwardCall, check: CallChecker): void {
  const storage = validateShape(call, check);
  const { tokens, hiddenSize, numExperts, topK, gradTables } = call;
  check.input("gradOutput", call.gradOutput, tokens * hiddenSize, [storage]);
  if (gradTables !== undefined) check.group("gradTables", gradTables);
  const accepted = ["gradHiddenStates", "gradWeights"];
  if (gradTables?.layout === "dense") accepted.push("gradTables");
  check.accumulate(call.accumulate, accepted);
  if (call.gradHiddenStates !== undefined) {
    check.output("gradHiddenStates", call.gradHiddenStates, tokens * hiddenSize, f32Only);
  }
  if (call.gradWeights !== undefined) check.output("gradWeights", call.gradWeights, tokens * topK, f32Only);
  if (gradTables === undefined) return;
  check.oneOf("gradTables.layout", gradTables.layout, ["dense", "compact"]);
  let rows = numExperts;
  if (gradTables.layout === "compact") {
    rows = Math.min(tokens * topK, numExperts);
    check.output("gradTables.ids", gradTables.ids, rows, i32Only);
    check.output("gradTables.count", gradTables.count, 1, i32Only);
  }
  if (gradTables.down !== undefined)
    check.output("gradTables.down", gradTables.down, rows * hiddenSize, f32Only);
  if (gradTables.up !== undefined) check.output("gradTables.up", gradTables.up, rows * hiddenSize, f32Only);
}
