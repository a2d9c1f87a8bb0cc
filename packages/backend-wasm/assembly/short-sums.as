// The matrix product where the sums are short, as of the gradient of a weight matrix over one token: an outer product.
// To write C takes longer than to compute it, so each row of it is written once, from front to back, and nothing is packed.

import { convert } from "./convert";
import { packLineOf } from "./matmul-pack";
import { F16, F32, madd } from "./simd";

/** In blocks, sums of four take as long. */
const longestShortSum: usize = 3;

/** Whether `multiplyShortSums` takes sums of this length. */
@inline
export function isShortSum(inner: usize): bool {
  return inner > 0 && inner <= longestShortSum;
}

/**
 * C [rows, columns] (+)= op(A) B with B [inner, columns]; the parameters are those of `multiplyRows`. `line`, `decoded`:
 * scratch, f32 [inner] and [inner, columns].
 */
export function multiplyShortSums(
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
  c: usize,
  rowBytes: usize,
  accumulate: bool,
  mean: usize,
  rstd: usize,
  line: usize,
  decoded: usize,
): void {
  if (dtypeB != F32) {
    for (let k: usize = 0; k < inner; k++) {
      convert(columns, dtypeB, b + k * leadingB * 2, F32, decoded + k * columns * 4);
    }
    b = decoded;
    leadingB = columns;
  }
  const next = transposeA ? 1 : leadingA;
  const stride = transposeA ? leadingA : 1;
  if (dtypeA == F32) {
    multiplyOf<f32>(rows, inner, columns, a, next, stride, b, leadingB, c, rowBytes, accumulate, mean, rstd, line);
  } else if (dtypeA == F16) {
    multiplyOf<u16>(rows, inner, columns, a, next, stride, b, leadingB, c, rowBytes, accumulate, mean, rstd, line);
  } else {
    multiplyOf<i16>(rows, inner, columns, a, next, stride, b, leadingB, c, rowBytes, accumulate, mean, rstd, line);
  }
}

/** The same. A in T; elements from one row of op(A) to the next: `next`, from one step of the sum to the next: `stride`. */
function multiplyOf<T>(
  rows: usize,
  inner: usize,
  columns: usize,
  a: usize,
  next: usize,
  stride: usize,
  b: usize,
  leadingB: usize,
  c: usize,
  rowBytes: usize,
  accumulate: bool,
  mean: usize,
  rstd: usize,
  line: usize,
): void {
  for (let row: usize = 0; row < rows; row++) {
    packLineOf<T>(a + row * next * sizeof<T>(), stride, inner, line, mean, rstd);
    sumSteps(inner, columns, line, b, leadingB * 4, c, accumulate);
    c += rowBytes;
  }
}

/** y[columns] (+)= x[inner] B, all in f32, rows of B `rowBytes` apart. */
function sumSteps(inner: usize, columns: usize, x: usize, b: usize, rowBytes: usize, y: usize, accumulate: bool): void {
  if (inner == 1) {
    if (accumulate) sumRows(1, true, columns, x, b, rowBytes, y);
    else sumRows(1, false, columns, x, b, rowBytes, y);
  } else if (inner == 2) {
    if (accumulate) sumRows(2, true, columns, x, b, rowBytes, y);
    else sumRows(2, false, columns, x, b, rowBytes, y);
  } else {
    if (accumulate) sumRows(3, true, columns, x, b, rowBytes, y);
    else sumRows(3, false, columns, x, b, rowBytes, y);
  }
}

/** The same, inlined with constants for `inner` and `accumulate`: the loop over columns decides nothing. */
@inline
function sumRows(
  inner: i32,
  accumulate: bool,
  columns: usize,
  x: usize,
  b: usize,
  rowBytes: usize,
  y: usize,
): void {
  const x0 = v128.load32_splat(x);
  const x1 = inner > 1 ? v128.load32_splat(x, 4) : x0;
  const x2 = inner > 2 ? v128.load32_splat(x, 8) : x0;
  for (; columns >= 16; columns -= 16) {
    const s0 = sumFour(inner, accumulate, x0, x1, x2, b, rowBytes, y);
    const s1 = sumFour(inner, accumulate, x0, x1, x2, b + 16, rowBytes, y + 16);
    const s2 = sumFour(inner, accumulate, x0, x1, x2, b + 32, rowBytes, y + 32);
    const s3 = sumFour(inner, accumulate, x0, x1, x2, b + 48, rowBytes, y + 48);
    v128.store(y, s0);
    v128.store(y, s1, 16);
    v128.store(y, s2, 32);
    v128.store(y, s3, 48);
    b += 64;
    y += 64;
  }
  for (; columns >= 4; columns -= 4) {
    v128.store(y, sumFour(inner, accumulate, x0, x1, x2, b, rowBytes, y));
    b += 16;
    y += 16;
  }
  for (; columns > 0; columns--) {
    let sum = load<f32>(x) * load<f32>(b);
    if (accumulate) sum += load<f32>(y);
    if (inner > 1) sum += load<f32>(x, 4) * load<f32>(b + rowBytes);
    if (inner > 2) sum += load<f32>(x, 8) * load<f32>(b + 2 * rowBytes);
    store<f32>(y, sum);
    b += 4;
    y += 4;
  }
}

/** Four columns of it. */
@inline
function sumFour(
  inner: i32,
  accumulate: bool,
  x0: v128,
  x1: v128,
  x2: v128,
  b: usize,
  rowBytes: usize,
  y: usize,
): v128 {
  let sum = accumulate ? madd(x0, v128.load(b), v128.load(y)) : f32x4.mul(x0, v128.load(b));
  if (inner > 1) sum = madd(x1, v128.load(b + rowBytes), sum);
  if (inner > 2) sum = madd(x2, v128.load(b + 2 * rowBytes), sum);
  return sum;
}
