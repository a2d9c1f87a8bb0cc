// The two things that are done with rows of a matrix or a table, a few rows at a time: their dot products with one
// vector, and their weighted sum. A few rows mean as many independent streams of memory and chains of additions, so that
// neither latency is waited for; the vector in common is loaded once for all.

import { fourth4, load1, load4, madd, second4, store1, sumLanes, third4 } from "./simd";

/**
 * Rows whose dot products are made together. V8 loads all that a turn of a loop needs before it computes: six sums, two
 * parts of x and six of the rows are what fits into 16 registers. A fourth row, or eight sums, take half as long again.
 */
export const dotLines: usize = 3;

/** Bytes of the sums of three rows: two vectors a row, of the first and the second four of each eight elements. */
export const sumsBytes: usize = 6 * 16;

/**
 * sums[n] = x . row n for three rows in T, which need not be neighbours; x in f32. `sums`: `sumsBytes` of scratch.
 *
 * A piece of the rows at a time: the first one `begins`, the last one `ends`, and all but the last have a multiple of
 * eight elements. In between, the sums are in memory.
 */
export function dotThreeRows<T>(
  length: usize,
  x: usize,
  r0: usize,
  r1: usize,
  r2: usize,
  sums: usize,
  begins: bool,
  ends: bool,
): void {
  let a0 = f32x4.splat(0);
  let a1 = f32x4.splat(0);
  let a2 = f32x4.splat(0);
  let b0 = f32x4.splat(0);
  let b1 = f32x4.splat(0);
  let b2 = f32x4.splat(0);
  if (!begins) {
    a0 = v128.load(sums);
    a1 = v128.load(sums, 16);
    a2 = v128.load(sums, 32);
    b0 = v128.load(sums, 48);
    b1 = v128.load(sums, 64);
    b2 = v128.load(sums, 80);
  }
  const bytes: usize = 4 * sizeof<T>();
  const end = x + (length & ~7) * 4;
  while (x < end) {
    // Twice eight elements a turn. V8 fetches all of a stretch without a branch before it computes: with the question of
    // the end between them, the second eight need no registers of their own.
    let x0 = v128.load(x);
    let x1 = v128.load(x, 16);
    a0 = madd(x0, load4<T>(r0), a0);
    a1 = madd(x0, load4<T>(r1), a1);
    a2 = madd(x0, load4<T>(r2), a2);
    b0 = madd(x1, second4<T>(r0), b0);
    b1 = madd(x1, second4<T>(r1), b1);
    b2 = madd(x1, second4<T>(r2), b2);
    if (x + 32 == end) {
      x += 32;
      r0 += 2 * bytes;
      r1 += 2 * bytes;
      r2 += 2 * bytes;
      break;
    }
    x0 = v128.load(x, 32);
    x1 = v128.load(x, 48);
    a0 = madd(x0, third4<T>(r0), a0);
    a1 = madd(x0, third4<T>(r1), a1);
    a2 = madd(x0, third4<T>(r2), a2);
    b0 = madd(x1, fourth4<T>(r0), b0);
    b1 = madd(x1, fourth4<T>(r1), b1);
    b2 = madd(x1, fourth4<T>(r2), b2);
    x += 64;
    r0 += 4 * bytes;
    r1 += 4 * bytes;
    r2 += 4 * bytes;
  }
  if (!ends) {
    v128.store(sums, a0);
    v128.store(sums, a1, 16);
    v128.store(sums, a2, 32);
    v128.store(sums, b0, 48);
    v128.store(sums, b1, 64);
    v128.store(sums, b2, 80);
    return;
  }
  length &= 7;
  if (length >= 4) {
    const x0 = v128.load(x);
    a0 = madd(x0, load4<T>(r0), a0);
    a1 = madd(x0, load4<T>(r1), a1);
    a2 = madd(x0, load4<T>(r2), a2);
    x += 16;
    r0 += bytes;
    r1 += bytes;
    r2 += bytes;
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
  store<f32>(sums, s0);
  store<f32>(sums, s1, 4);
  store<f32>(sums, s2, 8);
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
  const bytes: usize = 4 * sizeof<T>();
  for (const end = target + (length & ~7) * 4; target < end; target += 32) {
    let sum = madd(v0, load4<T>(r0), v128.load(target));
    let next = madd(v0, second4<T>(r0), v128.load(target, 16));
    sum = madd(v1, load4<T>(r1), sum);
    next = madd(v1, second4<T>(r1), next);
    sum = madd(v2, load4<T>(r2), sum);
    next = madd(v2, second4<T>(r2), next);
    v128.store(target, madd(v3, load4<T>(r3), sum));
    v128.store(target, madd(v3, second4<T>(r3), next), 16);
    r0 += 2 * bytes;
    r1 += 2 * bytes;
    r2 += 2 * bytes;
    r3 += 2 * bytes;
  }
  length &= 7;
  let h: usize = 0;
  if (length >= 4) {
    let sum = madd(v0, load4<T>(r0), v128.load(target));
    sum = madd(v1, load4<T>(r1), sum);
    sum = madd(v2, load4<T>(r2), sum);
    v128.store(target, madd(v3, load4<T>(r3), sum));
    h = 4;
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
