import type { LinearCall, NormStatistics } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import type { WasmBuffer } from "../wasm-buffer.js";
import { matrixOf, type Norm, product } from "./product.js";

export function linear(call: LinearCall<WasmBuffer>, context: OpContext): void {
  const { rows, inner, columns, a, b, output, inputNorm, outputNorm } = call;
  if (rows === 0 || columns === 0) return;
  product(
    [rows, inner, columns],
    matrixOf(a, call.transposeA),
    matrixOf(b, call.transposeB),
    matrixOf(output),
    context,
    {
      accumulate: call.accumulate?.includes("output"),
      inputNorm: inputNorm && reciprocalDeviation(inputNorm, inner, context),
      outputNorm: outputNorm && reciprocalDeviation(outputNorm, columns, context),
    },
  );
}

function reciprocalDeviation(norm: NormStatistics<WasmBuffer>, features: number, context: OpContext): Norm {
  const rstd = context.scratch(features * 4);
  const args = [features, norm.variance.address, norm.epsilon, rstd] as const;
  context.step("reciprocalDeviation", 1, features * 0.005, [...args]);
  return { mean: norm.mean.address, rstd };
}
