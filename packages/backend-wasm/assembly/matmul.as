// The matrix product of `linear` and of the shared MLP, one block of it:
//
//     C[rows, columns] (+)= op(A) op(B),   C in f32, A and B in any storage dtype
//
// Order of work, from outside: slices of B (innerBlock x columns, packed once, about the size of an L2 cache), slices
// of A (rowBlock x innerBlock, packed), panels of B (8 columns, 8 KiB: stays in L1 while all rows of A's slice pass
// over it), panels of A (4 rows). The inner kernel holds 4 x 8 sums in eight registers and reads both panels from front
// to back. What is left of a sum between slices of the inner dimension is in C, so the order of additions depends on
// the inner size alone, and not on how C is cut into blocks.

import { madd, F16, F32 } from "./simd";
import { matvec } from "./matvec";
import { pack, packLineOf } from "./matmul-pack";
import { roundUp, smaller } from "./tasks";

const rowBlock: usize = 64;
const innerBlock: usize = 256;
const panelRows: usize = 4;
const panelColumns: usize = 8;
const tileBytes: usize = panelRows * panelColumns * 4;
/** Up to so many rows, packing B costs more than it saves. */
const fewRows: usize = 3;

/** Whether a product of so many rows is made row by row. */
@inline
export function isFewRows(rows: usize): bool {
  return rows <= fewRows;
}

/** Bytes of scratch that `multiplyBlock` takes for a block of these sizes, a multiple of 16. */
export function matmulScratchBytes(rows: usize, inner: usize, columns: usize): usize {
  const depth = smaller(inner, innerBlock);
  const linesA = roundUp(smaller(rows, rowBlock), panelRows);
  const linesB = roundUp(columns, panelColumns);
  const packed = tileBytes + (linesA + linesB) * depth * 4;
  const line: usize = 16 + inner * 4;
  return roundUp(isFewRows(rows) && line > packed ? line : packed, 16);
}

/** C's tile of 4 x 8 (+)= the product of a panel of A and a panel of B. `rowBytes`: from one row of C to the next. */
function multiplyPanels(depth: usize, a: usize, b: usize, c: usize, rowBytes: usize, accumulate: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0);
  let c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0);
  let c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0);
  let c31 = f32x4.splat(0);
  // One step a turn: unrolled, V8 moves the sums between registers, and fused multiply-adds lose a third.
  for (const end = a + depth * 16; a < end; a += 16) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    b += 32;
  }
  storeRow(c, c00, c01, accumulate);
  storeRow(c + rowBytes, c10, c11, accumulate);
  storeRow(c + 2 * rowBytes, c20, c21, accumulate);
  storeRow(c + 3 * rowBytes, c30, c31, accumulate);
}

@inline
function storeRow(c: usize, left: v128, right: v128, accumulate: bool): void {
  if (accumulate) {
    left = f32x4.add(v128.load(c), left);
    right = f32x4.add(v128.load(c, 16), right);
  }
  v128.store(c, left);
  v128.store(c, right, 16);
}

/** The part of a whole tile that lies inside C. */
function storePartialTile(
  tile: usize,
  c: usize,
  rowBytes: usize,
  rows: usize,
  columns: usize,
  accumulate: bool,
): void {
  for (let row: usize = 0; row < rows; row++) {
    for (let column: usize = 0; column < columns; column++) {
      const to = c + row * rowBytes + column * 4;
      const value = load<f32>(tile + (row * panelColumns + column) * 4);
      store<f32>(to, accumulate ? load<f32>(to) + value : value);
    }
  }
}

/** All tiles of a block of C, from packed blocks of A and B. */
function multiplyBlocks(
  rows: usize,
  depth: usize,
  columns: usize,
  packedA: usize,
  packedB: usize,
  c: usize,
  rowBytes: usize,
  tile: usize,
  accumulate: bool,
): void {
  for (let column: usize = 0; column < columns; column += panelColumns) {
    const b = packedB + column * depth * 4;
    const tileColumns = smaller(columns - column, panelColumns);
    for (let row: usize = 0; row < rows; row += panelRows) {
      const a = packedA + row * depth * 4;
      const to = c + row * rowBytes + column * 4;
      const tileRows = smaller(rows - row, panelRows);
      if (tileRows == panelRows && tileColumns == panelColumns) {
        multiplyPanels(depth, a, b, to, rowBytes, accumulate);
      } else {
        multiplyPanels(depth, a, b, tile, panelColumns * 4, false);
        storePartialTile(tile, to, rowBytes, tileRows, tileColumns, accumulate);
      }
    }
  }
}

function packAny(
  dtype: i32,
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  width: usize,
  mean: usize,
  rstd: usize,
): void {
  if (dtype == F32) pack<f32>(source, leading, across, lines, depth, target, width, mean, rstd);
  else if (dtype == F16) pack<u16>(source, leading, across, lines, depth, target, width, mean, rstd);
  else pack<i16>(source, leading, across, lines, depth, target, width, mean, rstd);
}

/** Bytes of a stored value. */
@inline
export function bytesOf(dtype: i32): usize {
  return dtype == F32 ? 4 : 2;
}

/**
 * `a`: [rows, inner], stored rows `leadingA` apart, or [inner, rows] with `transposeA`; `b`: [inner, columns], or
 * [columns, inner] with `transposeB`, stored rows `leadingB` apart; `c`: [rows, columns] in f32, rows `rowBytes` apart.
 * `mean`, `rstd`: f32 [inner], or 0: then `a` (not transposed) is taken as (a - mean) * rstd. `few`: row by row, which
 * the whole product decides, not the block: the two ways differ in the last bits.
 */
export function multiplyBlock(
  rows: usize,
  inner: usize,
  columns: usize,
  dtypeA: i32,
  a: usize,
  leadingA: usize,
  transposeA: bool,
  dtypeB: i32,
  b: usize,
  leadingB: usize,
  transposeB: bool,
  c: usize,
  rowBytes: usize,
  accumulate: bool,
  mean: usize,
  rstd: usize,
  few: bool,
  scratch: usize,
): void {
  if (inner == 0) {
    if (!accumulate) for (let row: usize = 0; row < rows; row++) memory.fill(c + row * rowBytes, 0, columns * 4);
    return;
  }
  if (few) {
    const line = scratch + 16;
    for (let row: usize = 0; row < rows; row++) {
      const x = a + (transposeA ? row : row * leadingA) * bytesOf(dtypeA);
      packLine(dtypeA, x, transposeA ? leadingA : 1, inner, line, mean, rstd);
      matvec(inner, columns, line, dtypeB, b, leadingB, transposeB, c + row * rowBytes, accumulate, scratch);
    }
    return;
  }
  const tile = scratch;
  const packedA = tile + tileBytes;
  const packedB =
    packedA + roundUp(smaller(rows, rowBlock), panelRows) * smaller(inner, innerBlock) * 4;
  for (let k: usize = 0; k < inner; k += innerBlock) {
    const depth = smaller(inner - k, innerBlock);
    const startB = b + (transposeB ? k : k * leadingB) * bytesOf(dtypeB);
    packAny(dtypeB, startB, leadingB, !transposeB, columns, depth, packedB, panelColumns, 0, 0);
    const blockMean: usize = mean == 0 ? 0 : mean + k * 4;
    const blockRstd = rstd + k * 4;
    for (let row: usize = 0; row < rows; row += rowBlock) {
      const blockRows = smaller(rows - row, rowBlock);
      const startA = a + (transposeA ? k * leadingA + row : row * leadingA + k) * bytesOf(dtypeA);
      packAny(
        dtypeA,
        startA,
        leadingA,
        transposeA,
        blockRows,
        depth,
        packedA,
        panelRows,
        blockMean,
        blockRstd,
      );
      multiplyBlocks(
        blockRows,
        depth,
        columns,
        packedA,
        packedB,
        c + row * rowBytes,
        rowBytes,
        tile,
        accumulate || k > 0,
      );
    }
  }
}

/** `count` elements that lie `stride` apart, as f32 in a row; normalised if `mean` is given. */
function packLine(
  dtype: i32,
  source: usize,
  stride: usize,
  count: usize,
  target: usize,
  mean: usize,
  rstd: usize,
): void {
  if (dtype == F32) packLineOf<f32>(source, stride, count, target, mean, rstd);
  else if (dtype == F16) packLineOf<u16>(source, stride, count, target, mean, rstd);
  else packLineOf<i16>(source, stride, count, target, mean, rstd);
}
