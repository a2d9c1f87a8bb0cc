// The atomic experts, forward. Token by token, with its k rows of each table:
//
//     a_j = x . down[id_j],   output += sum over j of act(a_j) w_j up[id_j]
//
// Every row is read once, from front to back, four rows at a time; x and the output row stay in the cache. Nothing of
// size [T, k, H] exists. Sums are in f32 in the order of the slots.

import { activate } from "./activation";
import { addFourRows, addRow, dotFourRows } from "./rows";
import { F16, F32 } from "./simd";

/** Bytes of scratch that the experts' kernels take per token: lists of up to k + 3 slots. */
export function expertsScratchBytes(topK: usize): usize {
  return (topK + 3) * 4 * lists;
}

/** Lists of one token: slot, row, dot products, coefficients. */
const lists: usize = 6;

/**
 * Lists the slots of a token whose ids are below `numExperts`: their numbers and ids. Returns how many there are;
 * the last row is repeated up to a multiple of four.
 */
@inline
export function listRows(topK: usize, numExperts: u32, ids: usize, slots: usize, rows: usize): usize {
  let count: usize = 0;
  for (let slot: usize = 0; slot < topK; slot++) {
    const id = load<u32>(ids + slot * 4);
    if (id >= numExperts) continue;
    store<u32>(slots + count * 4, <u32>slot);
    store<u32>(rows + count++ * 4, id);
  }
  if (count > 0) {
    const last = load<u32>(rows + (count - 1) * 4);
    for (let n = count; n % 4 != 0; n++) store<u32>(rows + n * 4, last);
  }
  return count;
}

/** The number of the first of `count` ids that is not below `numExperts`, or -1. */
export function firstWrongId(count: usize, numExperts: u32, ids: usize): i32 {
  for (let n: usize = 0; n < count; n++) if (load<u32>(ids + n * 4) >= numExperts) return <i32>n;
  return -1;
}

@inline
function rowAt<T>(table: usize, rows: usize, n: usize, hiddenSize: usize): usize {
  return table + load<u32>(rows + n * 4) * hiddenSize * sizeof<T>();
}

/** out[n] = x . table row rows[n], for `count` rows, in groups of four. */
export function dotRows<T>(
  count: usize,
  hiddenSize: usize,
  x: usize,
  table: usize,
  rows: usize,
  out: usize,
): void {
  for (let n: usize = 0; n < count; n += 4) {
    dotFourRows<T>(
      hiddenSize,
      x,
      rowAt<T>(table, rows, n, hiddenSize),
      rowAt<T>(table, rows, n + 1, hiddenSize),
      rowAt<T>(table, rows, n + 2, hiddenSize),
      rowAt<T>(table, rows, n + 3, hiddenSize),
      out + n * 4,
    );
  }
}

/** target += sum over n of coefficients[n] table row rows[n], in this order. */
export function addRows<T>(
  count: usize,
  hiddenSize: usize,
  table: usize,
  rows: usize,
  coefficients: usize,
  target: usize,
): void {
  let n: usize = 0;
  for (; n + 4 <= count; n += 4) {
    const c = coefficients + n * 4;
    addFourRows<T>(
      hiddenSize,
      target,
      rowAt<T>(table, rows, n, hiddenSize),
      rowAt<T>(table, rows, n + 1, hiddenSize),
      rowAt<T>(table, rows, n + 2, hiddenSize),
      rowAt<T>(table, rows, n + 3, hiddenSize),
      load<f32>(c),
      load<f32>(c, 4),
      load<f32>(c, 8),
      load<f32>(c, 12),
    );
  }
  for (; n < count; n++) {
    addRow<T>(hiddenSize, target, rowAt<T>(table, rows, n, hiddenSize), load<f32>(coefficients + n * 4));
  }
}

/** Puts values of [k] into the list of the valid slots. */
@inline
export function gather(count: usize, slots: usize, values: usize, out: usize): void {
  for (let n: usize = 0; n < count; n++) {
    store<f32>(out + n * 4, load<f32>(values + load<u32>(slots + n * 4) * 4));
  }
}

function forwardOf<T>(
  tokens: usize,
  hiddenSize: usize,
  numExperts: u32,
  topK: usize,
  activation: i32,
  x: usize,
  down: usize,
  up: usize,
  ids: usize,
  weights: usize,
  output: usize,
  scratch: usize,
): i32 {
  const list = (topK + 3) * 4;
  const slots = scratch;
  const rows = slots + list;
  const a = rows + list;
  const coefficients = a + list;
  let wrong: i32 = -1;
  for (let t: usize = 0; t < tokens; t++) {
    const count = listRows(topK, numExperts, ids, slots, rows);
    if (count < topK && wrong < 0) wrong = <i32>(t * topK) + firstWrongId(topK, numExperts, ids);
    dotRows<T>(count, hiddenSize, x, down, rows, a);
    gather(count, slots, weights, coefficients);
    for (let n: usize = 0; n < count; n += 4) {
      const value = activate(activation, v128.load(a + n * 4));
      v128.store(coefficients + n * 4, f32x4.mul(value, v128.load(coefficients + n * 4)));
    }
    addRows<T>(count, hiddenSize, up, rows, coefficients, output);
    x += hiddenSize * 4;
    output += hiddenSize * 4;
    ids += topK * 4;
    weights += topK * 4;
  }
  return wrong;
}

/**
 * Adds to `output` [T, H]. x and output in f32, the tables [N, H] in `dtype`, `ids` [T, k] i32, `weights` [T, k] f32.
 * Returns the number (t k + slot) of the first id that is not below N, which adds nothing, or -1.
 */
export function expertsForward(
  dtype: i32,
  tokens: usize,
  hiddenSize: usize,
  numExperts: u32,
  topK: usize,
  activation: i32,
  x: usize,
  down: usize,
  up: usize,
  ids: usize,
  weights: usize,
  output: usize,
  scratch: usize,
): i32 {
  if (dtype == F32) {
    return forwardOf<f32>(
      tokens, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, output, scratch,
    );
  }
  if (dtype == F16) {
    return forwardOf<u16>(
      tokens, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, output, scratch,
    );
  }
  return forwardOf<i16>(
    tokens, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, output, scratch,
  );
}
