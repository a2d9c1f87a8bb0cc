// The two things that are done with rows of a matrix or a table, four rows at a time: their dot products with one
// vector, and their weighted sum. Four rows mean four independent streams of memory and as many chains of additions,
// so that neither latency is waited for; the vector in common is loaded once for all.

import { load1, load4, madd, store1, sumLanes } from "./simd";

/** out[n] = x . row n for four rows in T; x in f32; `out` f32 [4]. The rows need not be neighbours. */
export function dotFourRows<T>(
  length: usize,
  x: usize,
  r0: usize,
  r1: usize,
  r2: usize,
  r3: usize,
  out: usize,
): void {
  let a0 = f32x4.splat(0);
  let a1 = f32x4.splat(0);
  let a2 = f32x4.splat(0);
  let a3 = f32x4.splat(0);
  let b0 = f32x4.splat(0);
  let b1 = f32x4.splat(0);
  let b2 = f32x4.splat(0);
  let b3 = f32x4.splat(0);
  let h: usize = 0;
  for (; h + 8 <= length; h += 8) {
    const at = h * sizeof<T>();
    const next = at + 4 * sizeof<T>();
    const x0 = v128.load(x + h * 4);
    const x1 = v128.load(x + h * 4, 16);
    a0 = madd(x0, load4<T>(r0 + at), a0);
    a1 = madd(x0, load4<T>(r1 + at), a1);
    a2 = madd(x0, load4<T>(r2 + at), a2);
    a3 = madd(x0, load4<T>(r3 + at), a3);
    b0 = madd(x1, load4<T>(r0 + next), b0);
    b1 = madd(x1, load4<T>(r1 + next), b1);
    b2 = madd(x1, load4<T>(r2 + next), b2);
    b3 = madd(x1, load4<T>(r3 + next), b3);
  }
  if (h + 4 <= length) {
    const at = h * sizeof<T>();
    const x0 = v128.load(x + h * 4);
    a0 = madd(x0, load4<T>(r0 + at), a0);
    a1 = madd(x0, load4<T>(r1 + at), a1);
    a2 = madd(x0, load4<T>(r2 + at), a2);
    a3 = madd(x0, load4<T>(r3 + at), a3);
    h += 4;
  }
  let s0 = sumLanes(f32x4.add(a0, b0));
  let s1 = sumLanes(f32x4.add(a1, b1));
  let s2 = sumLanes(f32x4.add(a2, b2));
  let s3 = sumLanes(f32x4.add(a3, b3));
  for (; h < length; h++) {
    const at = h * sizeof<T>();
    const value = load<f32>(x + h * 4);
    s0 += value * load1<T>(r0 + at);
    s1 += value * load1<T>(r1 + at);
    s2 += value * load1<T>(r2 + at);
    s3 += value * load1<T>(r3 + at);
  }
  store<f32>(out, s0);
  store<f32>(out, s1, 4);
  store<f32>(out, s2, 8);
  store<f32>(out, s3, 12);
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
