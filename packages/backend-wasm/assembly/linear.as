// `linear`, block by block of its output, and the last product of the shared MLP, which is one too:
//
//     C = round(norm(addend + op(norm(A)) op(B))),   or C += the product
//
// Where C is f32 its blocks are made in place, else in scratch; either way the block is still in a cache when it is
// normalised and rounded.

import { normalize } from "./batch-norm";
import { convert } from "./convert";
import { bytesOf, matmulScratchBytes, multiplyBlock, multiplyRows, panelAt } from "./matmul";
import { F32 } from "./simd";
import { partLength, smaller } from "./tasks";

/** Bytes of scratch a thread needs for blocks of these sizes. */
export function linearScratchBytes(
  blockRows: usize,
  inner: usize,
  blockColumns: usize,
  outputDType: i32,
): usize {
  const block: usize = outputDType == F32 ? 0 : blockRows * blockColumns * 4;
  return matmulScratchBytes(inner, blockColumns, 1) + block;
}

/**
 * `a`: [rows, inner], or [inner, rows] with `transposeA`; `b`: [inner, columns], or [columns, inner] with
 * `transposeB`; `c`, `addend`: [rows, columns]. `mean` and `rstd` f32 [inner], `outputMean` and `outputRstd` f32
 * [columns]. 0 stands for what is absent; there is no addend where C accumulates. `packed`: what `packRows` made of A, or
 * 0: then the rows are multiplied one by one; they or the sums must be few. `blockRows`: all, or a multiple of 12.
 */
export function linear(
  rows: usize,
  inner: usize,
  columns: usize,
  dtypeA: i32,
  a: usize,
  transposeA: bool,
  packed: usize,
  dtypeB: i32,
  b: usize,
  transposeB: bool,
  dtypeC: i32,
  c: usize,
  accumulate: bool,
  dtypeAddend: i32,
  addend: usize,
  mean: usize,
  rstd: usize,
  outputMean: usize,
  outputRstd: usize,
  blockRows: usize,
  blockColumns: usize,
  scratch: usize,
  scratchBytes: usize,
  task: usize,
  thread: usize,
): void {
  scratch += thread * scratchBytes;
  const across = (columns + blockColumns - 1) / blockColumns;
  const row = (task / across) * blockRows;
  const column = (task % across) * blockColumns;
  const height = partLength(rows, blockRows, task / across);
  const width = smaller(columns - column, blockColumns);
  const first = row * columns + column;
  const leadingB = transposeB ? inner : columns;

  const inPlace = dtypeC == F32;
  const block = inPlace ? c + first * 4 : scratch + matmulScratchBytes(inner, blockColumns, 1);
  const rowBytes = (inPlace ? columns : blockColumns) * 4;
  if (addend != 0) {
    for (let r: usize = 0; r < height; r++) {
      const from = addend + (first + r * columns) * bytesOf(dtypeAddend);
      convert(width, dtypeAddend, from, F32, block + r * rowBytes);
    }
  }
  b += (transposeB ? column * leadingB : column) * bytesOf(dtypeB);
  if (packed == 0) {
    const leadingA = transposeA ? rows : inner;
    a += (transposeA ? row : row * leadingA) * bytesOf(dtypeA);
    multiplyRows(
      height, inner, width, dtypeA, a, leadingA, transposeA, dtypeB, b, leadingB, transposeB, 0, block, rowBytes,
      accumulate || addend != 0, mean, rstd, scratch,
    );
  } else {
    multiplyBlock(
      height, inner, width, panelAt(packed, row, inner), dtypeB, b, leadingB, transposeB, 0, block, rowBytes,
      accumulate || addend != 0, scratch,
    );
  }
  for (let r: usize = 0; r < height; r++) {
    const line = block + r * rowBytes;
    if (outputMean != 0) {
      normalize(1, width, width, F32, line, outputMean + column * 4, outputRstd + column * 4, line);
    }
    if (!inPlace) convert(width, F32, line, dtypeC, c + (first + r * columns) * bytesOf(dtypeC));
  }
}
