import type { LinearCall, NormStatistics } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { productBlocks, productTime } from "../partition.js";
import { dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";

export function linear(call: LinearCall<WasmBuffer>, context: OpContext): void {
  const { rows, inner, columns, a, b, output, inputNorm, outputNorm } = call;
  if (rows === 0 || columns === 0) return;
  const blocks = productBlocks(rows, inner, columns);
  const scratchBytes =
    context.sizes.linearScratchBytes(blocks.rows, inner, blocks.columns, dtypeNumber(output)) >>> 0;
  const rstd = inputNorm && reciprocalDeviation(inputNorm, inner, context);
  const outputRstd = outputNorm && reciprocalDeviation(outputNorm, columns, context);
  context.step("linear", blocks.tasks, productTime(rows, inner, columns), [
    rows,
    inner,
    columns,
    dtypeNumber(a),
    a.address,
    call.transposeA ?? false,
    dtypeNumber(b),
    b.address,
    call.transposeB ?? false,
    dtypeNumber(output),
    output.address,
    call.accumulate?.includes("output") ?? false,
    0,
    0,
    inputNorm?.mean.address ?? 0,
    rstd ?? 0,
    outputNorm?.mean.address ?? 0,
    outputRstd ?? 0,
    blocks.rows,
    blocks.columns,
    context.threadScratch(scratchBytes),
    scratchBytes,
  ]);
}

/** Where 1 / sqrt(variance + epsilon) will be. */
function reciprocalDeviation(norm: NormStatistics<WasmBuffer>, features: number, context: OpContext): number {
  const rstd = context.scratch(features * 4);
  const args = [features, norm.variance.address, norm.epsilon, rstd] as const;
  context.step("reciprocalDeviation", 1, features * 0.005, [...args]);
  return rstd;
}
