// One step of AdamW, in place, on whole rows. With g = scale * gradient:
//
//     m = beta1 m + (1 - beta1) g
//     v = beta2 v + (1 - beta2) g^2
//     p = p - (lr weightDecay p + stepSize m / (correction sqrt(v) + epsilon))
//
// stepSize = lr / (1 - beta1^step) and correction = 1 / sqrt(1 - beta2^step) come from the host, made in f64. The decay
// is subtracted rather than p multiplied by 1 - lr weightDecay, which f32 cannot tell from 1 well.
//
// The work is bound by memory, and goes once through each array. With a compact gradient only the rows in use are
// touched, so that a step on a table of a million rows costs what its used rows cost.

import { bytesOf } from "./matmul";
import { F16, F32, load1, load4, store1, store4 } from "./simd";
import { partLength, smaller } from "./tasks";

@inline
function stepRange<T>(
  count: usize,
  parameter: usize,
  master: usize,
  first: usize,
  second: usize,
  gradient: usize,
  scale: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  decay: f32,
  stepSize: f32,
  correction: f32,
  epsilon: f32,
): void {
  let n: usize = 0;
  for (; n + 4 <= count; n += 4) {
    const at = n * 4;
    const g = f32x4.mul(f32x4.splat(scale), v128.load(gradient + at));
    const m = f32x4.add(
      f32x4.mul(f32x4.splat(beta1), v128.load(first + at)),
      f32x4.mul(f32x4.splat(rest1), g),
    );
    const v = f32x4.add(
      f32x4.mul(f32x4.splat(beta2), v128.load(second + at)),
      f32x4.mul(f32x4.mul(f32x4.splat(rest2), g), g),
    );
    v128.store(first + at, m);
    v128.store(second + at, v);
    const p = master != 0 ? v128.load(master + at) : load4<T>(parameter + n * sizeof<T>());
    const denominator = f32x4.add(
      f32x4.mul(f32x4.sqrt(v), f32x4.splat(correction)),
      f32x4.splat(epsilon),
    );
    const change = f32x4.add(
      f32x4.mul(f32x4.splat(decay), p),
      f32x4.div(f32x4.mul(f32x4.splat(stepSize), m), denominator),
    );
    const next = f32x4.sub(p, change);
    if (master != 0) v128.store(master + at, next);
    store4<T>(parameter + n * sizeof<T>(), next);
  }
  for (; n < count; n++) {
    const at = n * 4;
    const g = scale * load<f32>(gradient + at);
    const m = beta1 * load<f32>(first + at) + rest1 * g;
    const v = beta2 * load<f32>(second + at) + rest2 * g * g;
    store<f32>(first + at, m);
    store<f32>(second + at, v);
    const p = master != 0 ? load<f32>(master + at) : load1<T>(parameter + n * sizeof<T>());
    const denominator = f32.sqrt(v) * correction + epsilon;
    const next = p - (decay * p + (stepSize * m) / denominator);
    if (master != 0) store<f32>(master + at, next);
    store1<T>(parameter + n * sizeof<T>(), next);
  }
}

/**
 * Rows that are looked at together before they are stepped. In a large table each lies on a page of its own, whose
 * address the processor looks up for longer than the arithmetic takes; of several rows it does so at the same time.
 */
const rowsAhead: usize = 16;

/** Reads from both ends of a row. */
@inline
function touchRow(table: usize, row: usize, bytes: usize): u32 {
  const at = table + row * bytes;
  return load<u8>(at) | load<u8>(at + bytes - 1);
}

/** Steps the rows that ids[begin] to ids[end - 1] name; the first r whose id is no row, or -1. */
function stepRows<T>(
  rows: usize,
  columns: usize,
  parameter: usize,
  master: usize,
  first: usize,
  second: usize,
  gradient: usize,
  ids: usize,
  begin: usize,
  end: usize,
  scale: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  decay: f32,
  stepSize: f32,
  correction: f32,
  epsilon: f32,
): i32 {
  let wrong: i32 = -1;
  let touched: u32 = 0;
  for (let r = begin; r < end; r++) {
    if (columns != 0 && (r - begin) % rowsAhead == 0) {
      const ahead = smaller(end, r + rowsAhead);
      for (let next = r; next < ahead; next++) {
        const id: usize = load<u32>(ids + next * 4);
        if (id >= rows) continue;
        touched |= touchRow(parameter, id, columns * sizeof<T>());
        touched |= touchRow(first, id, columns * 4) | touchRow(second, id, columns * 4);
        if (master != 0) touched |= touchRow(master, id, columns * 4);
      }
    }
    const id: usize = load<u32>(ids + r * 4);
    if (id >= rows) {
      if (wrong < 0) wrong = <i32>r;
      continue;
    }
    const at = id * columns;
    stepRange<T>(
      columns,
      parameter + at * sizeof<T>(),
      master == 0 ? 0 : master + at * 4,
      first + at * 4,
      second + at * 4,
      gradient + r * columns * 4,
      scale,
      beta1,
      rest1,
      beta2,
      rest2,
      decay,
      stepSize,
      correction,
      epsilon,
    );
  }
  // Never so: rows without columns are not looked at. It keeps the compiler from leaving out what nobody reads.
  return columns == 0 && touched != 0 ? 0 : wrong;
}

/** Steps all of `length` elements; a part is `perTask` of them, a multiple of four. */
export function adamwDense(
  dtype: i32,
  length: usize,
  parameter: usize,
  master: usize,
  first: usize,
  second: usize,
  gradient: usize,
  scale: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  decay: f32,
  stepSize: f32,
  correction: f32,
  epsilon: f32,
  perTask: usize,
  task: usize,
  thread: usize,
): void {
  const begin = task * perTask;
  const count = partLength(length, perTask, task);
  parameter += begin * bytesOf(dtype);
  if (master != 0) master += begin * 4;
  first += begin * 4;
  second += begin * 4;
  gradient += begin * 4;
  if (dtype == F32) {
    stepRange<f32>(
      count, parameter, master, first, second, gradient, scale, beta1, rest1, beta2, rest2, decay, stepSize,
      correction, epsilon,
    );
  } else if (dtype == F16) {
    stepRange<u16>(
      count, parameter, master, first, second, gradient, scale, beta1, rest1, beta2, rest2, decay, stepSize,
      correction, epsilon,
    );
  } else {
    stepRange<i16>(
      count, parameter, master, first, second, gradient, scale, beta1, rest1, beta2, rest2, decay, stepSize,
      correction, epsilon,
    );
  }
}

/** 0 if the number at `count` is not one from 0 to `capacity`, else -1. */
export function checkCount(count: usize, capacity: u32, task: usize, thread: usize): i32 {
  return load<u32>(count) > capacity ? 0 : -1;
}

/**
 * Steps row ids[r] of the parameter with row r of the gradient, for every r below the number at `count`, which is
 * taken as one from 0 to `capacity`. A part is `perTask` of the ids. Returns the first r of the part whose id is not
 * below `rows` (such rows are passed over), or -1.
 */
export function adamwRows(
  dtype: i32,
  rows: usize,
  columns: usize,
  parameter: usize,
  master: usize,
  first: usize,
  second: usize,
  gradient: usize,
  ids: usize,
  capacity: usize,
  count: usize,
  scale: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  decay: f32,
  stepSize: f32,
  correction: f32,
  epsilon: f32,
  perTask: usize,
  task: usize,
  thread: usize,
): i32 {
  const asked = load<i32>(count);
  const used: usize = asked < 0 ? 0 : smaller(<usize>asked, capacity);
  const begin = task * perTask;
  const end = begin + partLength(used, perTask, task);
  if (dtype == F32) {
    return stepRows<f32>(
      rows, columns, parameter, master, first, second, gradient, ids, begin, end, scale, beta1, rest1, beta2, rest2,
      decay, stepSize, correction, epsilon,
    );
  }
  if (dtype == F16) {
    return stepRows<u16>(
      rows, columns, parameter, master, first, second, gradient, ids, begin, end, scale, beta1, rest1, beta2, rest2,
      decay, stepSize, correction, epsilon,
    );
  }
  return stepRows<i16>(
    rows, columns, parameter, master, first, second, gradient, ids, begin, end, scale, beta1, rest1, beta2, rest2,
    decay, stepSize, correction, epsilon,
  );
}
