import type { BatchNormBackwardCall, BatchNormForwardCall } from "@flash-moe/core";
import type { DeviceMemory } from "../device-memory.js";
import { flag, floatBits, type OpContext } from "../op-context.js";

/** Features that one workgroup takes when it sums over the batch. */
const featuresPerWorkgroup = 16;

export function batchNormForward(call: BatchNormForwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, features, epsilon } = call;
  if (tokens === 0) return;
  const input = context.operand("input", call.input);
  const mean = context.whole("mean", call.mean);
  const variance = context.whole("variance", call.variance);
  let exactMean = context.absent;
  if (call.training) {
    const { momentum } = call;
    exactMean = context.scratch("the means before rounding", 8 * features);
    context.launch({
      kernel: "batch_norm_statistics",
      types: { x: input.dtype },
      params: [
        tokens,
        features,
        floatBits(1 / tokens),
        floatBits(tokens / (tokens - 1)),
        floatBits(momentum),
        floatBits(1 - momentum),
      ],
      bindings: [
        input.binding,
        mean,
        variance,
        context.whole("runningMean", call.runningMean),
        context.whole("runningVariance", call.runningVariance),
        exactMean,
      ],
      workgroups: Math.ceil(features / featuresPerWorkgroup),
    });
  }
  const size = tokens * features;
  context.launch({
    kernel: "batch_norm_apply",
    types: { x: input.dtype },
    params: [size, features, floatBits(epsilon), flag(call.training)],
    bindings: [input.binding, mean, variance, exactMean, context.whole("output", call.output)],
    workgroups: Math.ceil(size / 256),
  });
}

export function batchNormBackward(call: BatchNormBackwardCall<DeviceMemory>, context: OpContext): void {
  const { tokens, features, training } = call;
  if (tokens === 0) return;
  const epsilon = floatBits(call.epsilon);
  const input = context.operand("input", call.input);
  const inputs = [
    input.binding,
    context.whole("mean", call.mean),
    context.whole("variance", call.variance),
    context.whole("gradOutput", call.gradOutput),
  ];
  let sums = context.absent;
  if (training) {
    sums = context.scratch("means over the batch", 8 * features);
    context.launch({
      kernel: "batch_norm_grad_sums",
      types: { x: input.dtype },
      params: [tokens, features, epsilon, floatBits(1 / tokens)],
      bindings: [...inputs, sums],
      workgroups: Math.ceil(features / featuresPerWorkgroup),
    });
  }
  const size = tokens * features;
  context.launch({
    kernel: "batch_norm_grad",
    types: { x: input.dtype },
    params: [size, features, epsilon, flag(training), flag(call.accumulate?.includes("gradInput"))],
    bindings: [...inputs, sums, context.whole("gradInput", call.gradInput)],
    workgroups: Math.ceil(size / 256),
  });
}
