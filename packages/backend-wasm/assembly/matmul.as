// The matrix product of `linear` and of the shared MLP, one block of it:
//
//     C[rows, columns] (+)= op(A) op(B),   C in f32, A and B in any storage dtype
//
// A is packed before, by `packRows`, for all blocks. Order of work then, from outside: slices of B (innerBlock x columns,
// packed here, at most the size of an L2 cache), panels of A (a few rows, stays in L1 while all of B's slice passes), panels
// of B (8 columns). The inner kernels hold all sums of a tile in registers and read both panels from front to back. What
// is left of a sum between slices of the inner dimension is in C, so the order of additions depends on the inner size
// alone, and not on how C is cut into blocks. A few rows are not packed but multiplied one by one, and so are those of
// which each is the sum of a few rows of B: `multiplyRows`.

import { madd, F16, F32 } from "./simd";
import { matvec } from "./matvec";
import { sumsBytes } from "./rows";
import { pack, packLineOf, packSplats } from "./matmul-pack";
import { isShortSum, multiplyShortSums } from "./short-sums";
import { partLength, roundUp, smaller } from "./tasks";

const innerBlock: usize = 256;
const panelColumns: usize = 8;
/** Rows of a panel of A whose elements are vectors of four equal lanes, and bytes from one step of the sum to the next. */
const splatRows: usize = 4;
const splatStepBytes: usize = 64;
/** The same of a panel for fused multiply-adds; it has room for 8 rows. */
const fusedRows: usize = 6;
const fusedStepBytes: usize = 32;
const panelRows = ASC_FEATURE_RELAXED_SIMD ? fusedRows : splatRows;
const tileBytes: usize = fusedRows * panelColumns * 4;

/** Whether a panel of so many rows is one of splats. */
@inline
function isSplat(rows: usize): bool {
  return !ASC_FEATURE_RELAXED_SIMD || rows <= splatRows;
}

/** Where the panel that begins with `row`, a multiple of its rows, is in what `packRows` makes. */
@inline
export function panelAt(packed: usize, row: usize, inner: usize): usize {
  return packed + (row / panelRows) * inner * (ASC_FEATURE_RELAXED_SIMD ? fusedStepBytes : splatStepBytes);
}

/** Bytes of what `packRows` makes. */
export function packedRowsBytes(rows: usize, inner: usize): usize {
  // The last panel may be one of splats.
  return panelAt(0, rows + panelRows - 1, inner) + inner * (splatStepBytes - fusedStepBytes);
}

/**
 * Packs `a`, [rows, inner], stored rows `leading` apart, or [inner, rows] with `transpose`, into panels. `mean`, `rstd`:
 * f32 [inner], or 0: then `a` (not transposed) is taken as (a - mean) * rstd. A part is `perTask` rows, a multiple of 12.
 */
export function packRows(
  rows: usize,
  inner: usize,
  dtype: i32,
  a: usize,
  leading: usize,
  transpose: bool,
  mean: usize,
  rstd: usize,
  packed: usize,
  perTask: usize,
  task: usize,
  thread: usize,
): void {
  const first = task * perTask;
  const end = first + partLength(rows, perTask, task);
  for (let row = first; row < end; row += panelRows) {
    const lines = smaller(end - row, panelRows);
    const source = a + (transpose ? row : row * leading) * bytesOf(dtype);
    packAny(dtype, source, leading, transpose, lines, inner, panelAt(packed, row, inner), isSplat(lines), mean, rstd);
  }
}

/** Bytes of scratch that a block of these sizes takes, a multiple of 16; `products`: with a twin 2. */
export function matmulScratchBytes(inner: usize, columns: usize, products: usize): usize {
  const packed = tileBytes + products * roundUp(columns, panelColumns) * smaller(inner, innerBlock) * 4;
  const line: usize = sumsBytes + inner * 4;
  return roundUp(line > packed ? line : packed, 16);
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
  const end = a + depth * splatStepBytes;
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
 * `packedA`: the panels of the block's rows, of A [rows, inner]; `b`: [inner, columns], or [columns, inner] with
 * `transposeB`, stored rows `leadingB` apart; `c`: [rows, columns] in f32, rows `rowBytes` apart. `twin`: 0, or a second
 * matrix like `b`, whose product is made in the same pass over A and goes to the right of the first in C, from column
 * `twinColumn(columns)` on; columns between the two are undefined.
 */
export function multiplyBlock(
  rows: usize,
  inner: usize,
  columns: usize,
  packedA: usize,
  dtypeB: i32,
  b: usize,
  leadingB: usize,
  transposeB: bool,
  twin: usize,
  c: usize,
  rowBytes: usize,
  accumulate: bool,
  scratch: usize,
): void {
  const toTwin = twinColumn(columns);
  const width = twin == 0 ? columns : toTwin + columns;
  if (inner == 0) {
    if (!accumulate) for (let row: usize = 0; row < rows; row++) memory.fill(c + row * rowBytes, 0, width * 4);
    return;
  }
  const packedB = scratch + tileBytes;
  for (let k: usize = 0; k < inner; k += innerBlock) {
    const depth = smaller(inner - k, innerBlock);
    const skipped = (transposeB ? k : k * leadingB) * bytesOf(dtypeB);
    packAny(dtypeB, b + skipped, leadingB, !transposeB, columns, depth, packedB, false, 0, 0);
    if (twin != 0) {
      packAny(dtypeB, twin + skipped, leadingB, !transposeB, columns, depth, packedB + toTwin * depth * 4, false, 0, 0);
    }
    for (let row: usize = 0; row < rows; row += panelRows) {
      const lines = smaller(rows - row, panelRows);
      multiplyPanels(
        lines,
        depth,
        width,
        panelAt(packedA, row, inner) + k * (isSplat(lines) ? splatStepBytes : fusedStepBytes),
        packedB,
        c + row * rowBytes,
        rowBytes,
        scratch,
        accumulate || k > 0,
      );
    }
  }
}

/**
 * The same row by row, from `a` as it is stored: [rows, inner], rows `leadingA` apart, or [inner, rows] with `transposeA`;
 * `mean`, `rstd` as in `packRows`. Results differ from `multiplyBlock`'s in the last bits.
 */
export function multiplyRows(
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
  scratch: usize,
): void {
  const line = scratch + sumsBytes;
  if (twin == 0 && !transposeB && isShortSum(inner)) {
    multiplyShortSums(
      rows, inner, columns, dtypeA, a, leadingA, transposeA, dtypeB, b, leadingB, c, rowBytes, accumulate, mean, rstd, line,
      scratch + tileBytes,
    );
    return;
  }
  for (let row: usize = 0; row < rows; row++) {
    const x = a + (transposeA ? row : row * leadingA) * bytesOf(dtypeA);
    const y = c + row * rowBytes;
    const isLine = dtypeA == F32 && !transposeA && mean == 0;
    if (!isLine) packLine(dtypeA, x, transposeA ? leadingA : 1, inner, line, mean, rstd);
    const from = isLine ? x : line;
    matvec(inner, columns, from, dtypeB, b, leadingB, transposeB, y, accumulate, scratch);
    if (twin == 0) continue;
    matvec(inner, columns, from, dtypeB, twin, leadingB, transposeB, y + twinColumn(columns) * 4, accumulate, scratch);
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
