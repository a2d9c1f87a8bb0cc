import { type FloatDType, floatDTypes, type LinearCall, type NormStatistics } from "@flash-moe/core";
import { type HostNorm, type LinearNumbers, linearApproximate } from "../bounds/linear.js";
import type { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import type { HostFloats, Inputs } from "../inputs.js";

interface LinearVariant {
  readonly name: string;
  readonly size: readonly [rows: number, inner: number, columns: number];
  /** Of a, b and the output. Default f32. */
  readonly dtypes?: readonly [a: FloatDType, b: FloatDType, output: FloatDType];
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly accumulate?: boolean;
  readonly inputNorm?: boolean;
  readonly outputNorm?: boolean;
  readonly numbers?: "normal" | "outliers";
  /** Standard deviation of a and of b. Default 1. */
  readonly scale?: number;
  /** Mean of `a`, and of its statistics, in standard deviations. */
  readonly mean?: number;
}

const storage: Readonly<Record<FloatDType, readonly [FloatDType, FloatDType, FloatDType]>> = {
  f32: ["f32", "f32", "f32"],
  f16: ["f16", "f16", "f16"],
  bf16: ["bf16", "bf16", "bf16"],
};

const variants: readonly LinearVariant[] = [
  { name: "f32/one-by-one", size: [1, 1, 1] },
  { name: "f32/odd-sizes", size: [37, 129, 65] },
  { name: "f32/whole-tiles", size: [64, 64, 64] },
  { name: "f32/one-row", size: [1, 320, 129] },
  { name: "f32/one-column", size: [130, 33, 1], transposeB: true },
  { name: "f32/long-inner", size: [5, 2051, 7], transposeB: true },
  { name: "f32/many-rows", size: [700, 3, 5] },
  { name: "f32/outliers", size: [37, 129, 65], numbers: "outliers" },
  { name: "f32/transpose-a", size: [37, 66, 19], transposeA: true },
  { name: "f32/transpose-b", size: [37, 66, 19], transposeB: true },
  { name: "f32/transpose-both", size: [37, 66, 19], transposeA: true, transposeB: true },
  { name: "f32/accumulate", size: [37, 66, 19], transposeB: true, accumulate: true },
  { name: "f32/accumulate-transpose-a", size: [33, 70, 17], transposeA: true, accumulate: true },
  { name: "f32/few-rows-accumulate", size: [6, 133, 68], accumulate: true },
  { name: "f32/outer-product", size: [70, 1, 37], transposeA: true },
  { name: "f32/short-inner-accumulate", size: [68, 3, 35], transposeA: true, accumulate: true },
  { name: "f32/input-norm", size: [37, 66, 19], transposeB: true, inputNorm: true },
  { name: "f32/input-norm-large-mean", size: [37, 66, 19], transposeB: true, inputNorm: true, mean: 1000 },
  { name: "f32/input-norm-accumulate", size: [9, 66, 19], inputNorm: true, accumulate: true },
  // Rows of b and of the statistics are whole in fours, not in eights.
  ...floatDTypes.flatMap((dtype) =>
    [1, 2, 3].map(
      (rows): LinearVariant => ({
        name: `${dtype}/few-rows-input-norm-${rows}`,
        size: [rows, 132, 67],
        dtypes: [dtype, dtype, "f32"],
        transposeB: rows !== 2,
        inputNorm: true,
        mean: 3,
      }),
    ),
  ),
  { name: "f32/output-norm", size: [37, 66, 19], transposeB: true, outputNorm: true },
  { name: "f32/both-norms", size: [37, 66, 19], transposeB: true, inputNorm: true, outputNorm: true },
  { name: "f32/no-rows", size: [0, 5, 3] },
  { name: "f32/no-columns", size: [4, 5, 0] },
  { name: "f32/no-inner", size: [4, 0, 3] },
  { name: "f32/no-inner-accumulate", size: [4, 0, 3], accumulate: true },
  { name: "f32/no-inner-output-norm", size: [4, 0, 3], outputNorm: true },
  // Beyond the largest finite number an output is infinite.
  { name: "f16/overflow", size: [9, 1, 13], dtypes: storage.f16, scale: 2 ** 8 },
  { name: "bf16/overflow", size: [9, 1, 13], dtypes: storage.bf16, scale: 2 ** 64 },
  ...(["f16", "bf16"] as const).flatMap((dtype): LinearVariant[] => [
    { name: `${dtype}/odd-sizes`, size: [37, 129, 65], dtypes: storage[dtype] },
    { name: `${dtype}/transpose-b`, size: [17, 65, 33], dtypes: storage[dtype], transposeB: true },
    { name: `${dtype}/transpose-a`, size: [17, 65, 33], dtypes: storage[dtype], transposeA: true },
    { name: `${dtype}/few-rows`, size: [3, 130, 67], dtypes: storage[dtype] },
    { name: `${dtype}/short-inner`, size: [66, 5, 35], dtypes: storage[dtype], transposeA: true },
    { name: `${dtype}/odd-rows-of-output`, size: [5, 31, 1], dtypes: storage[dtype], transposeB: true },
    { name: `${dtype}/to-f32`, size: [37, 129, 65], dtypes: [dtype, dtype, "f32"], transposeB: true },
    { name: `${dtype}/from-f32`, size: [37, 129, 65], dtypes: ["f32", "f32", dtype] },
    { name: `${dtype}/f32-by-weights`, size: [37, 66, 19], dtypes: ["f32", dtype, "f32"], transposeB: true },
    { name: `${dtype}/states-by-f32`, size: [37, 66, 19], dtypes: [dtype, "f32", "f32"], transposeA: true },
    {
      name: `${dtype}/accumulate`,
      size: [37, 66, 19],
      dtypes: [dtype, dtype, "f32"],
      transposeA: true,
      accumulate: true,
    },
    {
      name: `${dtype}/input-norm`,
      size: [37, 66, 19],
      dtypes: [dtype, dtype, "f32"],
      transposeB: true,
      inputNorm: true,
      mean: 3,
    },
    {
      name: `${dtype}/both-norms`,
      size: [37, 66, 19],
      dtypes: storage[dtype],
      transposeB: true,
      inputNorm: true,
      outputNorm: true,
    },
    { name: `${dtype}/outliers`, size: [21, 129, 35], dtypes: storage[dtype], numbers: "outliers" },
    // More than one of the largest tiles each way, rows that begin aligned, and more than is on its way at a time.
    ...(["", "-transpose-a", "-transpose-b"] as const).map(
      (transposed): LinearVariant => ({
        name: `${dtype}/several-tiles${transposed}`,
        size: [136, 328, 264],
        dtypes: [dtype, dtype, "f32"],
        transposeA: transposed === "-transpose-a",
        transposeB: transposed === "-transpose-b",
      }),
    ),
  ]),
];

/** `linear` against the oracle. */
export const linearCases: readonly ConformanceCase[] = variants.map((variant) => ({
  id: `linear/${variant.name}`,
  needs: needs({ ops: ["linear"], dtypes: [...(variant.dtypes ?? storage.f32)] }),
  run: (context) => runLinear(context, variant),
}));

async function runLinear(context: CaseContext, variant: LinearVariant): Promise<void> {
  const { inputs } = context;
  const [rows, inner, columns] = variant.size;
  const [dtypeA, dtypeB, dtypeOutput] = variant.dtypes ?? storage.f32;
  const { transposeA = false, transposeB = false, accumulate = false } = variant;
  const { scale = 1, mean = 0 } = variant;
  const a =
    variant.numbers === "outliers"
      ? inputs.outliers(rows * inner, dtypeA)
      : inputs.normal(rows * inner, dtypeA, scale, mean);
  const b = inputs.normal(inner * columns, dtypeB, scale);
  const start = accumulate ? inputs.normal(rows * columns) : undefined;
  const inputNorm = variant.inputNorm ? norm(context, inputs, inner, mean) : undefined;
  const outputNorm = variant.outputNorm ? norm(context, inputs, columns, 2) : undefined;
  const output =
    start === undefined ? context.output(dtypeOutput, rows * columns) : context.floats(start, "output");
  const call: LinearCall = {
    rows,
    inner,
    columns,
    transposeA,
    transposeB,
    a: context.floats(a, "a"),
    b: context.floats(b, "b"),
    output,
    ...(accumulate && { accumulate: ["output"] }),
    ...(inputNorm && { inputNorm: inputNorm.device }),
    ...(outputNorm && { outputNorm: outputNorm.device }),
  };
  context.backend.ops.linear(call);

  const numbers: LinearNumbers = {
    rows,
    inner,
    columns,
    transposeA,
    transposeB,
    a: a.values,
    b: b.values,
    start: start?.values,
    inputNorm: inputNorm?.host,
    outputNorm: outputNorm?.host,
  };
  const { values, errors } = linearApproximate(numbers);
  context.compare("output", await context.values(output), values, errors, dtypeOutput);
}

/** Statistics of an evaluation-mode normalisation, on the host and on the device. */
function norm(
  scope: BufferScope,
  inputs: Inputs,
  features: number,
  mean: number,
): { host: HostNorm; device: NormStatistics } {
  const means: HostFloats = inputs.normal(features, "f32", 1, mean);
  const variances: HostFloats = inputs.positive(features);
  const epsilon = 1e-5;
  return {
    host: { mean: means.values, variance: variances.values, epsilon },
    device: {
      mean: scope.floats(means, "norm.mean"),
      variance: scope.floats(variances, "norm.variance"),
      epsilon,
    },
  };
}
