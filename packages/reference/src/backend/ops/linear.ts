import type { LinearCall, NormStatistics } from "@flash-moe/core";
import { batchNormEvaluationForward, type FloatArray, type MatmulShape, matmul } from "../../oracle/index.js";
import { matmulBytes } from "../../oracle/matmul.js";
import { decodeToFloat32, decodeToFloat64 } from "../decode.js";
import { storeOutput } from "../encode.js";
import type { Computation, OpContext } from "../op-context.js";
import type { Scratch } from "../scratch.js";
import type { Storage } from "../storage.js";

export function linear(call: LinearCall<Storage>, { scratch }: OpContext): Computation {
  const { rows, inner, columns, transposeA, transposeB, inputNorm, outputNorm } = call;
  const shape: MatmulShape = { rows, inner, columns, transposeA, transposeB };
  const a = decodeToFloat32(call.a, scratch);
  const normalizeInput = inputNorm && normalization(rows, inner, inputNorm, scratch);
  const b = decodeToFloat32(call.b, scratch);
  scratch.count(matmulBytes(shape));
  const normalizeOutput = outputNorm && normalization(rows, columns, outputNorm, scratch);
  return () => {
    const product = matmul(normalizeInput?.(a) ?? a, b, shape);
    const values = normalizeOutput?.(product) ?? product;
    storeOutput(call.output, values, call.accumulate?.includes("output") ?? false);
  };
}

function normalization(
  tokens: number,
  features: number,
  norm: NormStatistics<Storage>,
  scratch: Scratch,
): (input: FloatArray) => Float64Array {
  const mean = decodeToFloat64(norm.mean, scratch);
  const variance = decodeToFloat64(norm.variance, scratch);
  // The output and the reciprocal deviations.
  scratch.count(8 * (tokens * features + features));
  const { epsilon } = norm;
  return (input) => batchNormEvaluationForward({ tokens, features, epsilon, input, mean, variance });
}
