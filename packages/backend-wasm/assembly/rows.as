// The two things that are done with rows of a matrix or a table, a few rows at a time: their dot products with one
// vector, and their weighted sum. A few rows mean as many independent streams of memory and chains of additions, so that
// neither latency is waited for; the vector in common is loaded once for all.

import { load1, load4, madd, store1, sumLanes } from "./simd";

/**
 * Rows whose dot products are made together. V8 loads all that a turn of a loop needs before it computes: six sums, two
 * parts of x and six of the rows are what fits into 16 registers. A fourth row, or eight sums, take half as long again.
 */
export const dotLines: usize = 3;

/** out[n] = x . row n for three rows in T; x in f32; `out` f32 [3]. The rows need not be neighbours. */
export function dotThreeRows<T>(
  length: usize,
  x: usize,
  r0: usize,
  r1: usize,
  r2: usize,
  out: usize,
): void {
  let a0 = f32x4.splat(0);
  let a1 = f32x4.splat(0);
  let a2 = f32x4.splat(0);
  let b0 = f32x4.splat(0);
  let b1 = f32x4.splat(0);
  let b2 = f32x4.splat(0);
  const second: usize = 4 * sizeof<T>();
  for (const end = x + (length & ~7) * 4; x < end; x += 32) {
    const x0 = v128.load(x);
    const x1 = v128.load(x, 16);
    a0 = madd(x0, load4<T>(r0), a0);
    a1 = madd(x0, load4<T>(r1), a1);
    a2 = madd(x0, load4<T>(r2), a2);
    b0 = madd(x1, load4<T>(r0 + second), b0);
    b1 = madd(x1, load4<T>(r1 + second), b1);
    b2 = madd(x1, load4<T>(r2 + second), b2);
    r0 += 2 * second;
    r1 += 2 * second;
    r2 += 2 * second;
  }
  length &= 7;
  if (length >= 4) {
    const x0 = v128.load(x);
    a0 = madd(x0, load4<T>(r0), a0);
    a1 = madd(x0, load4<T>(r1), a1);
    a2 = madd(x0, load4<T>(r2), a2);
    x += 16;
    r0 += second;
    r1 += second;
    r2 += second;
    length -= 4;
  }
  let s0 = sumLanes(f32x4.add(a0, b0));
  let s1 = sumLanes(f32x4.add(a1, b1));
  let s2 = sumLanes(f32x4.add(a2, b2));
  for (let h: usize = 0; h < length; h++) {
    const at = h * sizeof<T>();
    const value = load<f32>(x + h * 4);
    s0 += value * load1<T>(r0 + at);
    s1 += value * load1<T>(r1 + at);
    s2 += value * load1<T>(r2 + at);
  }
  store<f32>(out, s0);
  store<f32>(out, s1, 4);
  store<f32>(out, s2, 8);
}

/** target += c0 row0 + c1 row1 + c2 row2 + c3 row3, in this order; target in f32, rows in T. */
export function addFourRows<T>(
  length: usize,
  target: usize,
  r0: usize,
  r1: usize,
  r2: usize,
  r3: usize,
  c0: f32,
  c1: f32,
  c2: f32,
  c3: f32,
): void {
  const v0 = f32x4.splat(c0);
  const v1 = f32x4.splat(c1);
  const v2 = f32x4.splat(c2);
  const v3 = f32x4.splat(c3);
  let h: usize = 0;
  for (; h + 4 <= length; h += 4) {
    const at = h * sizeof<T>();
    let sum = madd(v0, load4<T>(r0 + at), v128.load(target + h * 4));
    sum = madd(v1, load4<T>(r1 + at), sum);
    sum = madd(v2, load4<T>(r2 + at), sum);
    v128.store(target + h * 4, madd(v3, load4<T>(r3 + at), sum));
  }
  for (; h < length; h++) {
    const at = h * sizeof<T>();
    let sum = load<f32>(target + h * 4) + c0 * load1<T>(r0 + at);
    sum += c1 * load1<T>(r1 + at);
    sum += c2 * load1<T>(r2 + at);
    store1<f32>(target + h * 4, sum + c3 * load1<T>(r3 + at));
  }
}

/** target += c row; target in f32, the row in T. */
export function addRow<T>(length: usize, target: usize, row: usize, c: f32): void {
  const v = f32x4.splat(c);
  let h: usize = 0;
  for (; h + 4 <= length; h += 4) {
    v128.store(target + h * 4, madd(v, load4<T>(row + h * sizeof<T>()), v128.load(target + h * 4)));
  }
  for (; h < length; h++) {
    store<f32>(target + h * 4, load<f32>(target + h * 4) + c * load1<T>(row + h * sizeof<T>()));
  }
}
