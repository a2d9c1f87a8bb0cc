// The matrix product of `linear` and of the shared MLP, one block of it:
//
//     C[rows, columns] (+)= op(A) op(B),   C in f32, A and B in any storage dtype
//
// Order of work, from outside: slices of B (innerBlock x columns, packed once, about the size of an L2 cache), panels of A
// (a few rows, packed, stays in L1 while all of B's slice passes), panels of B (8 columns). The inner kernels hold all
// sums of a tile in registers and read both panels from front to back. What is left of a sum between slices of the inner
// dimension is in C, so the order of additions depends on the inner size alone, and not on how C is cut into blocks.

import { madd, F16, F32 } from "./simd";
import { matvec } from "./matvec";
import { pack, packLineOf, packSplats } from "./matmul-pack";
import { roundUp, smaller } from "./tasks";

const innerBlock: usize = 256;
const panelColumns: usize = 8;
/** Rows of a panel whose elements are packed as vectors of four equal lanes. */
const splatRows: usize = 4;
/** Rows of a panel with fused multiply-add. */
const fusedRows: usize = 6;
/** From one step of the inner sum to the next in such a panel: room for 8 rows. */
const fusedStepBytes: usize = 32;
const tileBytes: usize = fusedRows * panelColumns * 4;
/** Up to so many rows, packing B costs more than it saves. */
const fewRows: usize = 3;

/** Whether a product of so many rows is made row by row. */
@inline
export function isFewRows(rows: usize): bool {
  return rows <= fewRows;
}

/** Bytes of scratch that `multiplyBlock` takes for a block of these sizes, a multiple of 16; `products`: with a twin 2. */
export function matmulScratchBytes(rows: usize, inner: usize, columns: usize, products: usize): usize {
  const depth = smaller(inner, innerBlock);
  const packed = tileBytes + (splatRows * 4 + products * roundUp(columns, panelColumns)) * depth * 4;
  const line: usize = 16 + inner * 4;
  return roundUp(isFewRows(rows) && line > packed ? line : packed, 16);
}

/**
 * C's tile of 6 x 8 (+)= the product of a panel of A and a panel of B. `rowBytes`: from one row of C to the next.
 *
 * Twelve sums, since a fused multiply-add takes four cycles and two begin in each: with the two parts of B and an element
 * of A they fill the 15 registers that V8 has for them. Where there are two instructions instead of one, V8 keeps some
 * of the sums in memory and takes twice as long.
 */
function multiplySixRows(depth: usize, a: usize, b: usize, c: usize, rowBytes: usize, accumulate: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0);
  let c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0);
  let c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0);
  let c31 = f32x4.splat(0);
  let c40 = f32x4.splat(0);
  let c41 = f32x4.splat(0);
  let c50 = f32x4.splat(0);
  let c51 = f32x4.splat(0);
  for (const end = a + depth * fusedStepBytes; a < end; a += fusedStepBytes) {
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
    x = v128.load32_splat(a, 16);
    c40 = madd(x, b0, c40);
    c41 = madd(x, b1, c41);
    x = v128.load32_splat(a, 20);
    c50 = madd(x, b0, c50);
    c51 = madd(x, b1, c51);
    b += 32;
  }
  storeRow(c, c00, c01, accumulate);
  storeRow(c + rowBytes, c10, c11, accumulate);
  storeRow(c + 2 * rowBytes, c20, c21, accumulate);
  storeRow(c + 3 * rowBytes, c30, c31, accumulate);
  storeRow(c + 4 * rowBytes, c40, c41, accumulate);
  storeRow(c + 5 * rowBytes, c50, c51, accumulate);
}

/**
 * The same for 4 x 8 and a panel of splats: V8 of 2023 computes the address of a load that splats in an instruction of its
 * own. Three steps a turn share what a turn costs; leaving between them, and not at the end, makes that V8 load what a
 * step needs where it is needed rather than all at once, for which there are not enough registers.
 */
function multiplyFourRows(depth: usize, a: usize, b: usize, c: usize, rowBytes: usize, accumulate: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = f32x4.splat(0);
  let c10 = f32x4.splat(0);
  let c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0);
  let c21 = f32x4.splat(0);
  let c30 = f32x4.splat(0);
  let c31 = f32x4.splat(0);
  const end = a + depth * 64;
  while (true) {
    if (a == end) break;
    let b0 = v128.load(b);
    let b1 = v128.load(b, 16);
    let x = v128.load(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load(a, 16);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load(a, 32);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load(a, 48);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    if (a == end - 64) break;
    b0 = v128.load(b, 32);
    b1 = v128.load(b, 48);
    x = v128.load(a, 64);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load(a, 80);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load(a, 96);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load(a, 112);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    if (a == end - 128) break;
    b0 = v128.load(b, 64);
    b1 = v128.load(b, 80);
    x = v128.load(a, 128);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load(a, 144);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load(a, 160);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load(a, 176);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    a += 192;
    b += 96;
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

/** Whether a panel of A is one of splats, when there are so many rows left. */
@inline
function isSplat(rowsLeft: usize): bool {
  return !ASC_FEATURE_RELAXED_SIMD || rowsLeft <= splatRows;
}

/** The tiles of a panel of A, at most `rows` high, and all panels of B. */
function multiplyPanels(
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
  const splat = isSplat(rows);
  const isWhole = rows >= (splat ? splatRows : fusedRows);
  for (let column: usize = 0; column < columns; column += panelColumns) {
    const b = packedB + column * depth * 4;
    const to = c + column * 4;
    const tileColumns = smaller(columns - column, panelColumns);
    const inPlace = isWhole && tileColumns == panelColumns;
    const target = inPlace ? to : tile;
    const targetRowBytes = inPlace ? rowBytes : panelColumns * 4;
    if (splat) multiplyFourRows(depth, packedA, b, target, targetRowBytes, accumulate && inPlace);
    else multiplySixRows(depth, packedA, b, target, targetRowBytes, accumulate && inPlace);
    if (!inPlace) storePartialTile(tile, to, rowBytes, rows, tileColumns, accumulate);
  }
}

/** Packs columns of B, or with `splat` and few enough `lines` rows of A: see `pack` and `packSplats`. */
function packAny(
  dtype: i32,
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  splat: bool,
  mean: usize,
  rstd: usize,
): void {
  if (dtype == F32) packOf<f32>(source, leading, across, lines, depth, target, splat, mean, rstd);
  else if (dtype == F16) packOf<u16>(source, leading, across, lines, depth, target, splat, mean, rstd);
  else packOf<i16>(source, leading, across, lines, depth, target, splat, mean, rstd);
}

@inline
function packOf<T>(
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  splat: bool,
  mean: usize,
  rstd: usize,
): void {
  if (splat) packSplats<T>(source, leading, across, lines, depth, target, mean, rstd);
  else pack<T>(source, leading, across, lines, depth, target, mean, rstd);
}

/** Where in C the product with `twin` begins. */
@inline
export function twinColumn(columns: usize): usize {
  return roundUp(columns, panelColumns);
}

/** Bytes of a stored value. */
@inline
export function bytesOf(dtype: i32): usize {
  return dtype == F32 ? 4 : 2;
}

/**
 * `a`: [rows, inner], stored rows `leadingA` apart, or [inner, rows] with `transposeA`; `b`: [inner, columns], or
 * [columns, inner] with `transposeB`, stored rows `leadingB` apart; `c`: [rows, columns] in f32, rows `rowBytes` apart.
 * `mean`, `rstd`: f32 [inner], or 0: then `a` (not transposed) is taken as (a - mean) * rstd. `twin`: 0, or a second
 * matrix like `b`, whose product is made in the same pass over `a` and goes to the right of the first in C, from column
 * `twinColumn(columns)` on; columns between the two are undefined. `few`: row by row, which the whole product decides, not
 * the block: the two ways differ in the last bits.
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
  twin: usize,
  c: usize,
  rowBytes: usize,
  accumulate: bool,
  mean: usize,
  rstd: usize,
  few: bool,
  scratch: usize,
): void {
  const toTwin = twinColumn(columns);
  const width = twin == 0 ? columns : toTwin + columns;
  if (inner == 0) {
    if (!accumulate) for (let row: usize = 0; row < rows; row++) memory.fill(c + row * rowBytes, 0, width * 4);
    return;
  }
  if (few) {
    const line = scratch + 16;
    for (let row: usize = 0; row < rows; row++) {
      const x = a + (transposeA ? row : row * leadingA) * bytesOf(dtypeA);
      const y = c + row * rowBytes;
      packLine(dtypeA, x, transposeA ? leadingA : 1, inner, line, mean, rstd);
      matvec(inner, columns, line, dtypeB, b, leadingB, transposeB, y, accumulate, scratch);
      if (twin == 0) continue;
      matvec(inner, columns, line, dtypeB, twin, leadingB, transposeB, y + toTwin * 4, accumulate, scratch);
    }
    return;
  }
  const packedA = scratch + tileBytes;
  for (let k: usize = 0; k < inner; k += innerBlock) {
    const depth = smaller(inner - k, innerBlock);
    const packedB = packedA + splatRows * 16 * depth;
    const skipped = (transposeB ? k : k * leadingB) * bytesOf(dtypeB);
    packAny(dtypeB, b + skipped, leadingB, !transposeB, columns, depth, packedB, false, 0, 0);
    if (twin != 0) {
      packAny(dtypeB, twin + skipped, leadingB, !transposeB, columns, depth, packedB + toTwin * depth * 4, false, 0, 0);
    }
    const blockMean: usize = mean == 0 ? 0 : mean + k * 4;
    const blockRstd = rstd + k * 4;
    for (let row: usize = 0; row < rows; ) {
      const splat = isSplat(rows - row);
      const lines = smaller(rows - row, splat ? splatRows : fusedRows);
      const startA = a + (transposeA ? k * leadingA + row : row * leadingA + k) * bytesOf(dtypeA);
      packAny(dtypeA, startA, leadingA, transposeA, lines, depth, packedA, splat, blockMean, blockRstd);
      multiplyPanels(
        lines,
        depth,
        width,
        packedA,
        packedB,
        c + row * rowBytes,
        rowBytes,
        scratch,
        accumulate || k > 0,
      );
      row += lines;
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
