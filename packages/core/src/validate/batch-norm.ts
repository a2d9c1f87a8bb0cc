import type { BatchNormBackwardCall, BatchNormForwardCall } from "../ops.js";
import { anyFloat, type CallChecker, f32Only } from "./call-checker.js";

function validateSizes(call: BatchNormForwardCall | BatchNormBackwardCall, check: CallChecker): void {
  check.size("tokens", call.tokens);
  check.size("features", call.features, 1);
  check.flag("training", call.training);
  if (call.training && call.tokens < 2) {
    check.fail(
      `tokens is ${call.tokens}; training mode takes at least 2, since it needs the variance of the batch`,
    );
  }
  check.number("epsilon", call.epsilon, 0);
}

export function validateBatchNormForward(call: BatchNormForwardCall, check: CallChecker): void {
  validateSizes(call, check);
  const { tokens, features } = call;
  check.input("input", call.input, tokens * features, anyFloat);
  check.output("output", call.output, tokens * features, f32Only);
  if (call.training) {
    check.number("momentum", call.momentum, 0, 1);
    check.output("mean", call.mean, features, f32Only);
    check.output("variance", call.variance, features, f32Only);
    check.output("runningMean", call.runningMean, features, f32Only);
    check.output("runningVariance", call.runningVariance, features, f32Only);
  } else {
    check.input("mean", call.mean, features, f32Only);
    check.input("variance", call.variance, features, f32Only);
  }
}

export function validateBatchNormBackward(call: BatchNormBackwardCall, check: CallChecker): void {
  validateSizes(call, check);
  const { tokens, features } = call;
  check.accumulate(call.accumulate, ["gradInput"]);
  check.input("input", call.input, tokens * features, anyFloat);
  check.input("mean", call.mean, features, f32Only);
  check.input("variance", call.variance, features, f32Only);
  check.input("gradOutput", call.gradOutput, tokens * features, f32Only);
  check.output("gradInput", call.gradInput, tokens * features, f32Only);
}
