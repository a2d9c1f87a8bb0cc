import type { FloatArray } from "./float-array.js";

export interface MatmulShape {
  rows: number;
  inner: number;
  columns: number;
  /** `a` is stored as [inner, rows]. */
  transposeA?: boolean;
  /** `b` is stored as [columns, inner]: PyTorch's weight shape. */
  transposeB?: boolean;
}

// 4 x 4 outputs at a time, over slices of the inner dimension whose packed strips stay in the first cache.
const tile = 4;
const innerSlice = 256;

/**
 * `output[r, c] = sum_p op(a)[r, p] * op(b)[p, c]`, a [rows, inner], b [inner, columns], output
 * [rows, columns], all row-major, in float64.
 *
 * Every output is summed from 0 in the order p = 0, 1, 2, ..., wherever it lies in a tile: the bits are
 * those of the triple loop.
 */
export function matmul(a: FloatArray, b: FloatArray, shape: MatmulShape): Float64Array {
  const { rows, inner, columns, transposeA = false, transposeB = false } = shape;
  const output = new Float64Array(rows * columns);
  const depthLimit = Math.min(inner, innerSlice);
  const stripA = new Float64Array(depthLimit * tile);
  const stripsB = new Float64Array(depthLimit * tile * Math.ceil(columns / tile));
  const edge = new Float64Array(tile * tile);
  for (let start = 0; start < inner; start += innerSlice) {
    const depth = Math.min(innerSlice, inner - start);
    for (let column = 0; column < columns; column += tile) {
      packStrip(stripsB, column * depth, b, {
        first: column,
        lines: columns,
        lineStride: transposeB ? inner : 1,
        start,
        depth,
        stride: transposeB ? 1 : columns,
      });
    }
    for (let row = 0; row < rows; row += tile) {
      packStrip(stripA, 0, a, {
        first: row,
        lines: rows,
        lineStride: transposeA ? 1 : inner,
        start,
        depth,
        stride: transposeA ? rows : 1,
      });
      const height = Math.min(tile, rows - row);
      for (let column = 0; column < columns; column += tile) {
        const width = Math.min(tile, columns - column);
        if (height === tile && width === tile) {
          addTile(output, row * columns + column, columns, stripA, stripsB, column * depth, depth);
        } else {
          const corner = row * columns + column;
          copyTile(edge, 0, tile, output, corner, columns, height, width);
          addTile(edge, 0, tile, stripA, stripsB, column * depth, depth);
          copyTile(output, corner, columns, edge, 0, tile, height, width);
        }
      }
    }
  }
  return output;
}

/** Bytes that `matmul` allocates: its output and the packed slices. */
export function matmulBytes(shape: MatmulShape): number {
  const { rows, inner, columns } = shape;
  const depth = Math.min(inner, innerSlice);
  return 8 * (rows * columns + depth * tile * (1 + Math.ceil(columns / tile)) + tile * tile);
}

interface StripSource {
  /** The first of the four lines (rows of op(a), columns of op(b)) and how many lines there are. */
  first: number;
  lines: number;
  lineStride: number;
  /** The slice of the inner dimension. */
  start: number;
  depth: number;
  stride: number;
}

/** Lays four lines side by side, `strip[stripStart + 4 p + line]`, with zeros where lines run out. */
function packStrip(strip: Float64Array, stripStart: number, source: FloatArray, from: StripSource): void {
  const { first, lines, lineStride, start, depth, stride } = from;
  for (let line = 0; line < tile; line++) {
    let at = stripStart + line;
    if (first + line >= lines) {
      for (let p = 0; p < depth; p++, at += tile) strip[at] = 0;
      continue;
    }
    let index = (first + line) * lineStride + start * stride;
    for (let p = 0; p < depth; p++, at += tile, index += stride) strip[at] = source[index];
  }
}

/** `c[i, j] += sum_p a[p, i] b[p, j]` on a 4 x 4 tile of `c`, kept in registers. */
function addTile(
  c: Float64Array,
  corner: number,
  stride: number,
  a: Float64Array,
  b: Float64Array,
  bStart: number,
  depth: number,
): void {
  const row0 = corner;
  const row1 = row0 + stride;
  const row2 = row1 + stride;
  const row3 = row2 + stride;
  let c00 = c[row0];
  let c01 = c[row0 + 1];
  let c02 = c[row0 + 2];
  let c03 = c[row0 + 3];
  let c10 = c[row1];
  let c11 = c[row1 + 1];
  let c12 = c[row1 + 2];
  let c13 = c[row1 + 3];
  let c20 = c[row2];
  let c21 = c[row2 + 1];
  let c22 = c[row2 + 2];
  let c23 = c[row2 + 3];
  let c30 = c[row3];
  let c31 = c[row3 + 1];
  let c32 = c[row3 + 2];
  let c33 = c[row3 + 3];
  for (let p = 0, i = 0, j = bStart; p < depth; p++, i += tile, j += tile) {
    const b0 = b[j];
    const b1 = b[j + 1];
    const b2 = b[j + 2];
    const b3 = b[j + 3];
    const a0 = a[i];
    c00 += a0 * b0;
    c01 += a0 * b1;
    c02 += a0 * b2;
    c03 += a0 * b3;
    const a1 = a[i + 1];
    c10 += a1 * b0;
    c11 += a1 * b1;
    c12 += a1 * b2;
    c13 += a1 * b3;
    const a2 = a[i + 2];
    c20 += a2 * b0;
    c21 += a2 * b1;
    c22 += a2 * b2;
    c23 += a2 * b3;
    const a3 = a[i + 3];
    c30 += a3 * b0;
    c31 += a3 * b1;
    c32 += a3 * b2;
    c33 += a3 * b3;
  }
  c[row0] = c00;
  c[row0 + 1] = c01;
  c[row0 + 2] = c02;
  c[row0 + 3] = c03;
  c[row1] = c10;
  c[row1 + 1] = c11;
  c[row1 + 2] = c12;
  c[row1 + 3] = c13;
  c[row2] = c20;
  c[row2 + 1] = c21;
  c[row2 + 2] = c22;
  c[row2 + 3] = c23;
  c[row3] = c30;
  c[row3 + 1] = c31;
  c[row3 + 2] = c32;
  c[row3 + 3] = c33;
}

function copyTile(
  target: Float64Array,
  targetCorner: number,
  targetStride: number,
  source: Float64Array,
  sourceCorner: number,
  sourceStride: number,
  height: number,
  width: number,
): void {
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      target[targetCorner + i * targetStride + j] = source[sourceCorner + i * sourceStride + j];
    }
  }
}
