import type { BatchNormBackwardCall, BatchNormForwardCall } from "../ops.js";
import { anyFloat, type CallChecker, f32Only } from "./call-checker.js";

function validateSizes<H>(call: BatchNormForwardCall | BatchNormBackwardCall, check: CallChecker<H>): void {
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

export function validateBatchNormForward<H>(
  call: BatchNormForwardCall,
  check: CallChecker<H>,
): BatchNormForwardCall<H> {
  validateSizes(call, check);
  const { tokens, features, epsilon } = call;
  const input = check.input("input", call.input, tokens * features, anyFloat);
  const output = check.output("output", call.output, tokens * features, f32Only);
  if (!call.training) {
    const mean = check.input("mean", call.mean, features, f32Only);
    const variance = check.input("variance", call.variance, features, f32Only);
    return { training: false, tokens, features, epsilon, input, output, mean, variance };
  }
  check.number("momentum", call.momentum, 0, 1);
  return {
    tokens,
    features,
    epsilon,
    input,
    output,
    training: true,
    momentum: call.momentum,
    mean: check.output("mean", call.mean, features, f32Only),
    variance: check.output("variance", call.variance, features, f32Only),
    runningMean: check.output("runningMean", call.runningMean, features, f32Only),
    runningVariance: check.output("runningVariance", call.runningVariance, features, f32Only),
  };
}

export function validateBatchNormBackward<H>(
  call: BatchNormBackwardCall,
  check: CallChecker<H>,
): BatchNormBackwardCall<H> {
  validateSizes(call, check);
  const { tokens, features, training, epsilon, accumulate } = call;
  check.accumulate(accumulate, ["gradInput"]);
  return {
    tokens,
    features,
    training,
    epsilon,
    accumulate,
    input: check.input("input", call.input, tokens * features, anyFloat),
    mean: check.input("mean", call.mean, features, f32Only),
    variance: check.input("variance", call.variance, features, f32Only),
    gradOutput: check.input("gradOutput", call.gradOutput, tokens * features, f32Only),
    gradInput: check.output("gradInput", call.gradInput, tokens * features, f32Only),
  };
}
