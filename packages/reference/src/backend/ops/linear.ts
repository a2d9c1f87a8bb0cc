import type { LinearCall, NormStatistics } from "@flash-moe/core";
import { batchNormEvaluationForward, type FloatArray, type MatmulShape, matmul } from "../../oracle/index.js";
import { matmulBytes } from "../../oracle/matmul.js";
import { decodeToFloat32, decodeToFloat64 } from "../decode.js";
import { storeOutput } from "../encode.js";
import type { OpContext } from "../op-context.js";
import type { Scratch } from "../scratch.js";
import type { Storage } from "../storage.js";

export function linear(call: LinearCall<Storage>, { scratch }: OpContext): void {
  const { rows, inner, columns, transposeA, transposeB, inputNorm, outputNorm } = call;
  const shape: MatmulShape = { rows, inner, columns, transposeA, transposeB };
  let a: FloatArray = decodeToFloat32(call.a, scratch);
  if (inputNorm !== undefined) a = normalize(a, rows, inner, inputNorm, scratch);
  const b = decodeToFloat32(call.b, scratch);
  scratch.count(matmulBytes(shape));
  let product = matmul(a, b, shape);
  if (outputNorm !== undefined) product = normalize(product, rows, columns, outputNorm, scratch);
  storeOutput(call.output, product, call.accumulate?.includes("output") ?? false);
}

function normalize(
  input: FloatArray,
  tokens: number,
  features: number,
  norm: NormStatistics<Storage>,
  scratch: Scratch,
): Float64Array {
  const mean = decodeToFloat64(norm.mean, scratch);
  const variance = decodeToFloat64(norm.variance, scratch);
  // The output and the reciprocal deviations.
  scratch.count(8 * (tokens * features + features));
  return batchNormEvaluationForward({ tokens, features, epsilon: norm.epsilon, input, mean, variance });
}
