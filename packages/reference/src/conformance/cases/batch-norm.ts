import type { FloatDType } from "@flash-moe/core";
import {
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
  batchStatistics,
} from "../../oracle/batch-norm.js";
import { addToStart, exact } from "../bounds/approximate.js";
import { batchNormBackwardErrors, batchNormTrainingErrors } from "../bounds/batch-norm.js";
import { normalize } from "../bounds/linear.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { type HostFloats, hostFloats, type Inputs } from "../inputs.js";

type Numbers = "normal" | "outliers" | "large-mean" | "constant-feature";

interface BatchNormVariant {
  readonly name: string;
  readonly tokens: number;
  readonly features: number;
  readonly dtype?: FloatDType;
  readonly numbers?: Numbers;
  /** Default 0.1. */
  readonly momentum?: number;
  readonly accumulate?: boolean;
}

const epsilon = 1e-5;

const shapes: readonly BatchNormVariant[] = [
  { name: "f32/odd-sizes", tokens: 37, features: 129 },
  { name: "f32/two-tokens", tokens: 2, features: 5 },
  { name: "f32/one-feature", tokens: 130, features: 1 },
  { name: "f32/many-tokens", tokens: 1031, features: 3 },
  { name: "f32/outliers", tokens: 37, features: 66, numbers: "outliers" },
  // E[x^2] - E[x]^2 has no digit left here.
  { name: "f32/large-mean", tokens: 64, features: 33, numbers: "large-mean" },
  { name: "f32/constant-feature", tokens: 19, features: 7, numbers: "constant-feature" },
  { name: "f16/odd-sizes", tokens: 37, features: 65, dtype: "f16" },
  { name: "bf16/odd-sizes", tokens: 37, features: 65, dtype: "bf16" },
];

const training: readonly BatchNormVariant[] = [
  ...shapes,
  { name: "f32/momentum-0", tokens: 9, features: 5, momentum: 0 },
  { name: "f32/momentum-1", tokens: 9, features: 5, momentum: 1 },
];

const evaluation: readonly BatchNormVariant[] = [
  ...shapes,
  { name: "f32/one-token", tokens: 1, features: 5 },
  { name: "f32/no-tokens", tokens: 0, features: 5 },
];

const accumulated: BatchNormVariant = { name: "f32/accumulate", tokens: 37, features: 19, accumulate: true };

/** `batchNormForward` and `batchNormBackward` against the oracle. */
export const batchNormCases: readonly ConformanceCase[] = [
  ...training.map((variant) => makeCase("batch-norm-training", "batchNormForward", variant, runTraining)),
  ...evaluation.map((variant) =>
    makeCase("batch-norm-evaluation", "batchNormForward", variant, runEvaluation),
  ),
  ...[...shapes, accumulated].map((variant) =>
    makeCase("batch-norm-training-backward", "batchNormBackward", variant, (context) =>
      runBackward(context, variant, true),
    ),
  ),
  ...[...evaluation, accumulated].map((variant) =>
    makeCase("batch-norm-evaluation-backward", "batchNormBackward", variant, (context) =>
      runBackward(context, variant, false),
    ),
  ),
];

function makeCase(
  topic: string,
  op: "batchNormForward" | "batchNormBackward",
  variant: BatchNormVariant,
  run: (context: CaseContext, variant: BatchNormVariant) => Promise<void>,
): ConformanceCase {
  return {
    id: `${topic}/${variant.name}`,
    needs: needs({ ops: [op], dtypes: [variant.dtype ?? "f32"] }),
    run: (context) => run(context, variant),
  };
}

function makeInput(inputs: Inputs, variant: BatchNormVariant): HostFloats {
  const { tokens, features, dtype = "f32", numbers = "normal" } = variant;
  const length = tokens * features;
  if (numbers === "outliers") return inputs.outliers(length, dtype);
  if (numbers === "large-mean") return inputs.normal(length, dtype, 1, 1000);
  const normal = inputs.normal(length, dtype, 2, 0.5);
  if (numbers === "normal") return normal;
  return hostFloats(
    normal.values.map((value, n) => (n % features === 0 ? 3 : value)),
    dtype,
  );
}

async function runTraining(context: CaseContext, variant: BatchNormVariant): Promise<void> {
  const { inputs } = context;
  const { tokens, features, momentum = 0.1 } = variant;
  const input = makeInput(inputs, variant);
  const oldMean = inputs.normal(features);
  const oldVariance = inputs.positive(features);
  const output = context.output("f32", tokens * features, "output");
  const mean = context.output("f32", features, "mean");
  const variance = context.output("f32", features, "variance");
  const runningMean = context.floats(oldMean, "runningMean");
  const runningVariance = context.floats(oldVariance, "runningVariance");
  context.backend.ops.batchNormForward({
    training: true,
    tokens,
    features,
    epsilon,
    momentum,
    input: context.floats(input, "input"),
    output,
    mean,
    variance,
    runningMean,
    runningVariance,
  });
  const numbers = {
    tokens,
    features,
    epsilon,
    momentum,
    input: input.values,
    runningMean: oldMean.values,
    runningVariance: oldVariance.values,
  };
  const expected = batchNormTrainingForward(numbers);
  const errors = batchNormTrainingErrors(numbers);
  const actual = { output, mean, variance, runningMean, runningVariance };
  for (const name of ["mean", "variance", "output", "runningMean", "runningVariance"] as const) {
    context.compare(name, await context.values(actual[name]), expected[name], errors[name]);
  }
}

async function runEvaluation(context: CaseContext, variant: BatchNormVariant): Promise<void> {
  const { inputs } = context;
  const { tokens, features } = variant;
  const input = makeInput(inputs, variant);
  const mean = inputs.normal(features, "f32", 1, variant.numbers === "large-mean" ? 1000 : 0.5);
  const variance = inputs.positive(features);
  const output = context.output("f32", tokens * features, "output");
  context.backend.ops.batchNormForward({
    training: false,
    tokens,
    features,
    epsilon,
    input: context.floats(input, "input"),
    output,
    mean: context.floats(mean, "mean"),
    variance: context.floats(variance, "variance"),
  });
  const statistics = { mean: mean.values, variance: variance.values, epsilon };
  const expected = batchNormEvaluationForward({ tokens, features, input: input.values, ...statistics });
  const { errors } = normalize(exact(input.values), features, statistics);
  context.compare("output", await context.values(output), expected, errors);
}

/** Judged alone: the statistics are given, as f32 numbers; in training those of the batch are meant. */
async function runBackward(
  context: CaseContext,
  variant: BatchNormVariant,
  isTraining: boolean,
): Promise<void> {
  const { inputs } = context;
  const { tokens, features, accumulate = false } = variant;
  const input = makeInput(inputs, variant);
  const statistics = isTraining
    ? batchStatistics({ tokens, features, input: input.values })
    : { mean: inputs.normal(features).values, variance: inputs.positive(features).values };
  const gradOutput = inputs.normal(tokens * features);
  const start = inputs.normal(tokens * features);
  const gradInput = accumulate
    ? context.floats(start, "gradInput")
    : context.output("f32", tokens * features, "gradInput");
  context.backend.ops.batchNormBackward({
    training: isTraining,
    tokens,
    features,
    epsilon,
    input: context.floats(input, "input"),
    mean: context.floats(hostFloats(statistics.mean), "mean"),
    variance: context.floats(hostFloats(statistics.variance), "variance"),
    gradOutput: context.floats(gradOutput, "gradOutput"),
    gradInput,
    ...(accumulate && { accumulate: ["gradInput"] }),
  });
  const numbers = {
    training: isTraining,
    tokens,
    features,
    epsilon,
    input: input.values,
    ...statistics,
    gradOutput: gradOutput.values,
  };
  const gradient = { values: batchNormBackward(numbers), errors: batchNormBackwardErrors(numbers) };
  const { values, errors } = accumulate ? addToStart(start.values, gradient, 1) : gradient;
  context.compare("gradInput", await context.values(gradInput), values, errors);
}
