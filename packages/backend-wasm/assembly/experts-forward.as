// The atomic experts, forward. Token by token, with its k rows of each table:
//
//     a_j = x . down[id_j],   output += sum over j of act(a_j) w_j up[id_j]
//
// Every row is read once, from front to back, twelve rows at a time; x and the output row stay in the cache. Nothing of
// size [T, k, H] exists. Sums are in f32 in the order of the slots.

import { activateRow } from "./activation";
import { convert } from "./convert";
import { bytesOf } from "./matmul";
import { addFourRows, addRow, dotLines, dotThreeRows, sumsBytes } from "./rows";
import { BF16, F16, F32 } from "./simd";
import { partLength, roundUp, smaller } from "./tasks";

/**
 * Rows that are read at the same time, `piece` elements of each in turn, and bytes of what their sums take in between. The
 * kernels take three or four; with as many streams of memory a processor reads rows that are in no cache at half to two
 * thirds of the rate of twelve. Longer turns are as good, shorter ones cost where rows are in a cache.
 */
const together: usize = 12;
const piece: usize = 128;
const togetherBytes: usize = (together / dotLines) * sumsBytes;

/** Bytes of scratch a thread needs, forward and backward: lists of up to k + 3 slots, two rows, and sums. */
export function expertsScratchBytes(topK: usize, hiddenSize: usize): usize {
  return roundUp((topK + 3) * 4 * lists + 2 * hiddenSize * 4 + togetherBytes, 64);
}

/** Lists of one token: slot, row, dot products, activations, slopes, coefficients. */
export const lists: usize = 6;

/**
 * Lists the slots of a token whose ids are below `numExperts`: their numbers and ids. Returns how many there are;
 * the last row is repeated up to a multiple of three.
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
    for (let n = count; n % dotLines != 0; n++) store<u32>(rows + n * 4, last);
  }
  return count;
}

/** The number of the first of `count` ids that is not below `numExperts`, or -1. */
export function firstWrong(count: usize, numExperts: u32, ids: usize): i32 {
  for (let n: usize = 0; n < count; n++) if (load<u32>(ids + n * 4) >= numExperts) return <i32>n;
  return -1;
}

/** The same, in parts. */
export function firstWrongId(
  count: usize,
  numExperts: u32,
  ids: usize,
  perTask: usize,
  task: usize,
  thread: usize,
): i32 {
  const first = task * perTask;
  const wrong = firstWrong(partLength(count, perTask, task), numExperts, ids + first * 4);
  return wrong < 0 ? -1 : wrong + <i32>first;
}

@inline
function rowAt<T>(table: usize, rows: usize, n: usize, hiddenSize: usize): usize {
  return table + load<u32>(rows + n * 4) * hiddenSize * sizeof<T>();
}

/**
 * Reads a byte of each of `count` rows. In a large table each lies on a page of its own, whose address takes longer to look
 * up than the arithmetic: asked for all at once, they are looked up several at a time. `out`, where what was read goes so
 * that no compiler leaves it out, is 4 bytes that nobody reads.
 */
export function touchRows<T>(count: usize, hiddenSize: usize, table: usize, rows: usize, out: usize): void {
  let touched: u32 = 0;
  for (let n: usize = 0; n < count; n++) touched |= load<u8>(rowAt<T>(table, rows, n, hiddenSize));
  store<u32>(out, touched);
}

/** out[n] = x . table row rows[n], for `count` rows, in groups of three. `sums`: `togetherBytes` of scratch. */
export function dotRows<T>(
  count: usize,
  hiddenSize: usize,
  x: usize,
  table: usize,
  rows: usize,
  out: usize,
  sums: usize,
): void {
  for (let first: usize = 0; first < count; first += together) {
    const end = smaller(first + together, count);
    for (let h: usize = 0; h < hiddenSize; h += piece) {
      const at = table + h * sizeof<T>();
      const ends = h + piece >= hiddenSize;
      let to = sums;
      for (let n = first; n < end; n += dotLines) {
        dotThreeRows<T>(
          ends ? hiddenSize - h : piece,
          x + h * 4,
          rowAt<T>(at, rows, n, hiddenSize),
          rowAt<T>(at, rows, n + 1, hiddenSize),
          rowAt<T>(at, rows, n + 2, hiddenSize),
          to,
          h == 0,
          ends,
        );
        to += sumsBytes;
      }
    }
    let from = sums;
    for (let n = first; n < end; n += dotLines) {
      v128.store(out + n * 4, v128.load(from));
      from += sumsBytes;
    }
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
  const whole = count & ~3;
  for (let first: usize = 0; first < whole; first += together) {
    const end = smaller(first + together, whole);
    for (let h: usize = 0; h < hiddenSize; h += piece) {
      const length = smaller(piece, hiddenSize - h);
      const at = table + h * sizeof<T>();
      for (let n = first; n < end; n += 4) {
        const c = coefficients + n * 4;
        addFourRows<T>(
          length,
          target + h * 4,
          rowAt<T>(at, rows, n, hiddenSize),
          rowAt<T>(at, rows, n + 1, hiddenSize),
          rowAt<T>(at, rows, n + 2, hiddenSize),
          rowAt<T>(at, rows, n + 3, hiddenSize),
          load<f32>(c),
          load<f32>(c, 4),
          load<f32>(c, 8),
          load<f32>(c, 12),
        );
      }
    }
  }
  for (let n = whole; n < count; n++) {
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
  dtypeAddend: i32,
  addend: usize,
  dtypeOutput: i32,
  output: usize,
  scratch: usize,
): i32 {
  const list = (topK + 3) * 4;
  const slots = scratch;
  const rows = slots + list;
  const a = rows + list;
  const coefficients = a + list;
  const state = scratch + lists * list;
  const sum = state + hiddenSize * 4;
  const sums = sum + hiddenSize * 4;
  let wrong: i32 = -1;
  for (let t: usize = 0; t < tokens; t++) {
    const count = listRows(topK, numExperts, ids, slots, rows);
    if (count < topK && wrong < 0) wrong = <i32>(t * topK) + firstWrong(topK, numExperts, ids);
    touchRows<T>(count, hiddenSize, down, rows, a);
    touchRows<T>(count, hiddenSize, up, rows, a);
    const from = isFloat<T>() ? x : state;
    if (!isFloat<T>()) convert(hiddenSize, isSigned<T>() ? BF16 : F16, x, F32, state);
    const to = dtypeOutput == F32 ? output : sum;
    if (addend == 0) memory.fill(to, 0, hiddenSize * 4);
    else convert(hiddenSize, dtypeAddend, addend, F32, to);
    dotRows<T>(count, hiddenSize, from, down, rows, a, sums);
    gather(count, slots, weights, coefficients);
    activateRow(activation, count, a, a);
    for (let n: usize = 0; n < count; n += 4) {
      v128.store(coefficients + n * 4, f32x4.mul(v128.load(a + n * 4), v128.load(coefficients + n * 4)));
    }
    addRows<T>(count, hiddenSize, up, rows, coefficients, to);
    if (dtypeOutput != F32) convert(hiddenSize, F32, sum, dtypeOutput, output);
    x += hiddenSize * sizeof<T>();
    if (addend != 0) addend += hiddenSize * bytesOf(dtypeAddend);
    output += hiddenSize * bytesOf(dtypeOutput);
    ids += topK * 4;
    weights += topK * 4;
  }
  return wrong;
}

/**
 * output = round(addend + the sum), [T, H]; addend 0: none. x and the tables [N, H] in `dtype`, `ids` [T, k] i32,
 * `weights` [T, k] f32. A part is `perTask` tokens. Returns the number (t k + slot) of the first id of the part that is
 * not below N, which adds nothing, or -1.
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
  dtypeAddend: i32,
  addend: usize,
  dtypeOutput: i32,
  output: usize,
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): i32 {
  const first = task * perTask;
  const count = partLength(tokens, perTask, task);
  scratch += thread * expertsScratchBytes(topK, hiddenSize);
  x += first * hiddenSize * bytesOf(dtype);
  ids += first * topK * 4;
  weights += first * topK * 4;
  if (addend != 0) addend += first * hiddenSize * bytesOf(dtypeAddend);
  output += first * hiddenSize * bytesOf(dtypeOutput);
  let wrong: i32;
  if (dtype == F32) {
    wrong = forwardOf<f32>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, dtypeAddend, addend, dtypeOutput,
      output, scratch,
    );
  } else if (dtype == F16) {
    wrong = forwardOf<u16>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, dtypeAddend, addend, dtypeOutput,
      output, scratch,
    );
  } else {
    wrong = forwardOf<i16>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, dtypeAddend, addend, dtypeOutput,
      output, scratch,
    );
  }
  return wrong < 0 ? -1 : wrong + <i32>(first * topK);
}
