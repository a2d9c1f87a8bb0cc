import type { BatchNormBackwardCall, BatchNormForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { elementTime, tasksOf, thingsPerTask } from "../partition.js";
import { dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";

/** Features of one line of a cache: slices begin where lines do. */
const sliceMultiple = 16;

/** Bytes of scratch per feature of a slice. */
const featureBytes = 32;

export function batchNormForward(call: BatchNormForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, features, input, mean, variance } = call;
  const perTask = thingsPerTask(features, tokens * elementTime.batchNorm, sliceMultiple);
  context.step("batchNormForward", tasksOf(features, perTask), tokens * features * elementTime.batchNorm, [
    tokens,
    features,
    dtypeNumber(input),
    input.address,
    mean.address,
    variance.address,
    call.epsilon,
    call.output.address,
    call.training ? call.momentum : 0,
    call.training ? call.runningMean.address : 0,
    call.training ? call.runningVariance.address : 0,
    perTask,
    context.threadScratch(perTask * featureBytes),
  ]);
}

export function batchNormBackward(call: BatchNormBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, features, input } = call;
  const perTask = thingsPerTask(features, tokens * elementTime.batchNorm, sliceMultiple);
  context.step("batchNormBackward", tasksOf(features, perTask), tokens * features * elementTime.batchNorm, [
    tokens,
    features,
    dtypeNumber(input),
    input.address,
    call.variance.address,
    call.epsilon,
    call.gradOutput.address,
    call.training,
    call.gradInput.address,
    call.accumulate?.includes("gradInput") ?? false,
    perTask,
    context.threadScratch(perTask * featureBytes),
  ]);
}
