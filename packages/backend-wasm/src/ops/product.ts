import type { OpContext } from "../op-context.js";
import {
  elementTime,
  panelMultiple,
  productBlocks,
  productTime,
  productWay,
  tasksOf,
  thingsPerTask,
} from "../partition.js";
import { dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";

/** A matrix in memory, as the kernels know it. */
export interface Matrix {
  readonly address: number;
  readonly dtype: number;
  readonly transposed: boolean;
}

/** The matrix that begins with element `start` of a buffer. */
export function matrixOf(buffer: WasmBuffer, transposed = false, start = 0): Matrix {
  return { address: elementAddress(buffer, start), dtype: dtypeNumber(buffer), transposed };
}

/** A matrix in scratch. */
export function scratchMatrix(address: number): Matrix {
  return { address, dtype: 0, transposed: false };
}

/** Where a mean and 1 / sqrt(variance + epsilon) are, f32. */
export interface Norm {
  readonly mean: number;
  readonly rstd: number;
}

const noNorm: Norm = { mean: 0, rstd: 0 };

export interface ProductOptions {
  readonly addend?: Matrix | undefined;
  readonly accumulate?: boolean;
  readonly inputNorm?: Norm | undefined;
  readonly outputNorm?: Norm | undefined;
}

/** Rows whose panels exist at a time: they take up to 64 bytes an element. A multiple of `panelMultiple`. */
const rowsAtATime = 528;

/** Steps target [rows, columns] (+)= addend + op(a) op(b), summed over `inner`. */
export function product(
  [rows, inner, columns]: readonly [rows: number, inner: number, columns: number],
  a: Matrix,
  b: Matrix,
  target: Matrix,
  context: OpContext,
  { addend, accumulate = false, inputNorm = noNorm, outputNorm = noNorm }: ProductOptions = {},
): void {
  const way = productWay(rows, inner, b.transposed);
  const atATime = way === "blocks" ? rowsAtATime : rows;
  for (let row = 0; row < rows; row += atATime) {
    const count = Math.min(rows - row, atATime);
    const part = movedBy(a, a.transposed ? row : row * inner);
    const packed =
      way === "blocks" ? packRows(count, inner, part, a.transposed ? rows : inner, context, inputNorm) : 0;
    const output = movedBy(target, row * columns);
    const added = addend && movedBy(addend, row * columns);
    const blocks = productBlocks(way, count, inner, columns);
    const scratchBytes =
      context.sizes.linearScratchBytes(blocks.rows, inner, blocks.columns, target.dtype) >>> 0;
    context.step("linear", blocks.tasks, productTime(way, count, inner, columns), [
      count,
      inner,
      columns,
      part.dtype,
      part.address,
      part.transposed,
      packed,
      b.dtype,
      b.address,
      b.transposed,
      output.dtype,
      output.address,
      accumulate,
      added?.dtype ?? 0,
      added?.address ?? 0,
      inputNorm.mean,
      inputNorm.rstd,
      outputNorm.mean,
      outputNorm.rstd,
      blocks.rows,
      blocks.columns,
      context.threadScratch(scratchBytes),
      scratchBytes,
    ]);
  }
}

function movedBy(matrix: Matrix, elements: number): Matrix {
  const { address, dtype, transposed } = matrix;
  return { address: address + elements * (dtype === 0 ? 4 : 2), dtype, transposed };
}

/** A step that packs op(a) [rows, inner], whose stored rows are `leading` apart; where its panels will be. */
export function packRows(
  rows: number,
  inner: number,
  a: Matrix,
  leading: number,
  context: OpContext,
  { mean, rstd }: Norm = noNorm,
): number {
  const packed = context.scratch(context.sizes.packedRowsBytes(rows, inner));
  const rowTime = inner * elementTime.pack;
  const perTask = thingsPerTask(rows, rowTime, panelMultiple);
  context.step("packRows", tasksOf(rows, perTask), rows * rowTime, [
    rows,
    inner,
    a.dtype,
    a.address,
    leading,
    a.transposed,
    mean,
    rstd,
    packed,
    perTask,
  ]);
  return packed;
}
