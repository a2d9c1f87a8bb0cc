import type { BatchNormBackwardCall, BatchNormForwardCall, BatchNormTrainingCall } from "@flash-moe/core";
import {
  batchNormEvaluationForward,
  batchNormTrainingForward,
  batchStatistics,
  batchNormBackward as oracleBackward,
} from "../../oracle/index.js";
import { decodeToFloat32, decodeToFloat64 } from "../decode.js";
import { encodeInto, storeOutput } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import type { Storage } from "../storage.js";

export function batchNormForward(call: BatchNormForwardCall<Storage>, context: OpContext): Computation {
  if (call.training) return trainingForward(call, context);
  const { scratch } = context;
  const { tokens, features, epsilon } = call;
  const input = decodeToFloat32(call.input, scratch);
  const mean = decodeToFloat64(call.mean, scratch);
  const variance = decodeToFloat64(call.variance, scratch);
  scratch.count(8 * (tokens + 1) * features);
  return () =>
    encodeInto(call.output, batchNormEvaluationForward({ tokens, features, epsilon, input, mean, variance }));
}

function trainingForward(call: BatchNormTrainingCall<Storage>, { scratch }: OpContext): Computation {
  const { tokens, features, epsilon, momentum } = call;
  const input = decodeToFloat32(call.input, scratch);
  const runningMean = decodeToFloat64(call.runningMean, scratch);
  const runningVariance = decodeToFloat64(call.runningVariance, scratch);
  // The output, four statistics and the reciprocal deviations.
  scratch.count(8 * (tokens + 5) * features);
  return () => {
    const result = batchNormTrainingForward({
      tokens,
      features,
      epsilon,
      momentum,
      input,
      runningMean,
      runningVariance,
    });
    encodeInto(call.output, result.output);
    encodeInto(call.mean, result.mean);
    encodeInto(call.variance, result.variance);
    encodeInto(call.runningMean, result.runningMean);
    encodeInto(call.runningVariance, result.runningVariance);
  };
}

export function batchNormBackward(call: BatchNormBackwardCall<Storage>, { scratch }: OpContext): Computation {
  const { tokens, features, epsilon, training } = call;
  const input = decodeToFloat32(call.input, scratch);
  // The output, the reciprocal deviations, two sums over the tokens, and in training two statistics.
  scratch.count(8 * (tokens + (training ? 5 : 3)) * features);
  const given = training
    ? undefined
    : { mean: decodeToFloat64(call.mean, scratch), variance: decodeToFloat64(call.variance, scratch) };
  const gradOutput = decodeToFloat32(call.gradOutput, scratch);
  return () => {
    // As the forward saved them they are rounded to f32, which shows where most of the gradient cancels.
    const { mean, variance } = given ?? batchStatistics({ tokens, features, input });
    const gradInput = oracleBackward({
      tokens,
      features,
      epsilon,
      training,
      input,
      mean,
      variance,
      gradOutput,
    });
    storeOutput(call.gradInput, gradInput, call.accumulate?.includes("gradInput") ?? false);
  };
}
