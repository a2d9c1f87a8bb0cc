import type { BatchNormBackwardCall, BatchNormForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";

export function batchNormForward(
  call: BatchNormForwardCall<WasmBuffer>,
  { kernels, scratch }: OpContext,
): void {
  const { tokens, features, input, output, mean, variance, epsilon } = call;
  const rstd = scratch(features * 4);
  if (call.training) {
    kernels.batchStatistics(
      tokens,
      features,
      dtypeNumber(input),
      input.address,
      call.momentum,
      mean.address,
      variance.address,
      call.runningMean.address,
      call.runningVariance.address,
      scratch(2 * 8 * features),
    );
  }
  kernels.reciprocalDeviation(features, variance.address, epsilon, rstd);
  kernels.normalize(tokens, features, dtypeNumber(input), input.address, mean.address, rstd, output.address);
}

export function batchNormBackward(
  call: BatchNormBackwardCall<WasmBuffer>,
  { kernels, scratch }: OpContext,
): void {
  const { tokens, features, input } = call;
  kernels.batchNormBackward(
    tokens,
    features,
    dtypeNumber(input),
    input.address,
    call.mean.address,
    call.variance.address,
    call.epsilon,
    call.gradOutput.address,
    call.training,
    call.gradInput.address,
    call.accumulate?.includes("gradInput") ?? false,
    scratch(3 * 8 * features),
  );
}
