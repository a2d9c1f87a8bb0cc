import type { LinearCall, NormStatistics } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";

/** Rows that are computed in f32 at a time where the output is 16-bit. */
const halfRows = 256;

export function linear(call: LinearCall<WasmBuffer>, context: OpContext): void {
  const { rows, inner, columns, a, b, output, transposeA = false, transposeB = false } = call;
  if (rows === 0 || columns === 0) return;
  const { kernels } = context;
  const isHalf = output.dtype !== "f32";
  const block = isHalf ? Math.min(rows, halfRows) : rows;
  const inputNorm = call.inputNorm && takeNorm(call.inputNorm, inner, context);
  const outputNorm = call.outputNorm && takeNorm(call.outputNorm, columns, context);
  const product = isHalf ? context.scratch(block * columns * 4) : 0;
  const scratch = context.scratch(kernels.matmulScratchBytes(block, inner, columns));

  inputNorm?.prepare();
  outputNorm?.prepare();
  for (let row = 0; row < rows; row += block) {
    const count = Math.min(block, rows - row);
    const target = isHalf ? product : output.address;
    kernels.matmul(
      count,
      inner,
      columns,
      dtypeNumber(a),
      elementAddress(a, transposeA ? row : row * inner),
      transposeA ? rows : inner,
      transposeA,
      dtypeNumber(b),
      b.address,
      transposeB,
      target,
      call.accumulate?.includes("output") ?? false,
      inputNorm?.mean ?? 0,
      inputNorm?.rstd ?? 0,
      scratch,
    );
    if (outputNorm !== undefined) {
      kernels.normalize(count, columns, 0, target, outputNorm.mean, outputNorm.rstd, target);
    }
    if (isHalf) {
      kernels.convert(
        count * columns,
        0,
        product,
        dtypeNumber(output),
        elementAddress(output, row * columns),
      );
    }
  }
}

interface Norm {
  readonly mean: number;
  readonly rstd: number;
  /** Computes rstd. */
  prepare(): void;
}

function takeNorm(norm: NormStatistics<WasmBuffer>, features: number, context: OpContext): Norm {
  const rstd = context.scratch(features * 4);
  return {
    mean: norm.mean.address,
    rstd,
    prepare: () => context.kernels.reciprocalDeviation(features, norm.variance.address, norm.epsilon, rstd),
  };
}
