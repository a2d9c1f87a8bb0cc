// The shared MLP up to its hidden activations, and their gradients, block by block of [tokens, I]. A block goes from the
// products to the activation without leaving the cache:
//
//     forward     hidden = act(x gate^T) * (x up^T)
//     backward    also dGate = dh * b * act'(a) and dUp = dh * act(a), with a and b the two products and dh = d down

import { activateRow, activationSlopeRow } from "./activation";
import { bytesOf, matmulScratchBytes, multiplyBlock, multiplyRows, panelAt, twinColumn } from "./matmul";
import { partLength, smaller } from "./tasks";

/** Bytes of scratch a thread needs for blocks of these sizes and `products` of them at a time, and a row. */
export function mlpScratchBytes(
  blockTokens: usize,
  hiddenSize: usize,
  blockColumns: usize,
  products: usize,
): usize {
  const rowBytes = twinColumn(blockColumns) * 4;
  return matmulScratchBytes(hiddenSize, blockColumns, 2) + (products * blockTokens + 1) * rowBytes;
}

/** Stores the first `count` (1 to 4) lanes. */
@inline
function storeLanes(at: usize, v: v128, count: usize): void {
  if (count >= 4) {
    v128.store(at, v);
    return;
  }
  store<f32>(at, f32x4.extract_lane(v, 0));
  if (count > 1) store<f32>(at, f32x4.extract_lane(v, 1), 4);
  if (count > 2) store<f32>(at, f32x4.extract_lane(v, 2), 8);
}

/**
 * x [tokens, H]; `gate` and `up` [I, H], all in `dtype`; `hidden` [tokens, I] in f32. For the backward: `gradOutput`
 * [tokens, H] and `down` [H, I] in `dtype`, `dGate` and `dUp` [tokens, I] in f32; for the forward they are 0.
 * `packed`, `packedGradOutput`: what `packRows` made of x and gradOutput, or 0: then the tokens, which must be few, are
 * multiplied one by one. `blockTokens`: all, or a multiple of 12.
 */
export function mlpHidden(
  tokens: usize,
  hiddenSize: usize,
  intermediateSize: usize,
  activation: i32,
  dtype: i32,
  x: usize,
  packed: usize,
  gate: usize,
  up: usize,
  hidden: usize,
  gradOutput: usize,
  packedGradOutput: usize,
  down: usize,
  dGate: usize,
  dUp: usize,
  blockTokens: usize,
  blockColumns: usize,
  scratch: usize,
  scratchBytes: usize,
  task: usize,
  thread: usize,
): void {
  scratch += thread * scratchBytes;
  const across = (intermediateSize + blockColumns - 1) / blockColumns;
  const token = (task / across) * blockTokens;
  const column = (task % across) * blockColumns;
  const height = partLength(tokens, blockTokens, task / across);
  const width = smaller(intermediateSize - column, blockColumns);
  const bytes = bytesOf(dtype);

  // A row of `ab` is one of both products, each in whole vectors; what is in the lanes beyond `width` is never stored.
  const toB = twinColumn(width) * 4;
  const rowBytes = toB * 2;
  const ab = scratch + matmulScratchBytes(hiddenSize, blockColumns, 2);
  const dh = ab + blockTokens * rowBytes;
  const states = x + token * hiddenSize * bytes;
  gate += column * hiddenSize * bytes;
  up += column * hiddenSize * bytes;
  if (packed == 0) {
    multiplyRows(
      height, hiddenSize, width, dtype, states, hiddenSize, false, dtype, gate, hiddenSize, true, up, ab, rowBytes, false,
      0, 0, scratch,
    );
  } else {
    multiplyBlock(
      height, hiddenSize, width, panelAt(packed, token, hiddenSize), dtype, gate, hiddenSize, true, up, ab, rowBytes, false,
      scratch,
    );
  }
  if (gradOutput != 0) {
    const d = gradOutput + token * hiddenSize * bytes;
    down += column * bytes;
    if (packedGradOutput == 0) {
      multiplyRows(
        height, hiddenSize, width, dtype, d, hiddenSize, false, dtype, down, intermediateSize, false, 0, dh, toB, false,
        0, 0, scratch,
      );
    } else {
      multiplyBlock(
        height, hiddenSize, width, panelAt(packedGradOutput, token, hiddenSize), dtype, down, intermediateSize, false, 0,
        dh, toB, false, scratch,
      );
    }
  }
  const values = dh + (gradOutput == 0 ? 0 : blockTokens * toB);
  for (let r: usize = 0; r < height; r++) {
    const to = ((token + r) * intermediateSize + column) * 4;
    const row = ab + r * rowBytes;
    activateRow(activation, width, row, values);
    if (gradOutput != 0) activationSlopeRow(activation, width, row, row);
    for (let c: usize = 0; c < width; c += 4) {
      const at = c * 4;
      const value = v128.load(values + at);
      const factor = v128.load(row + toB + at);
      storeLanes(hidden + to + at, f32x4.mul(value, factor), width - c);
      if (gradOutput == 0) continue;
      const d = v128.load(dh + r * toB + at);
      storeLanes(dGate + to + at, f32x4.mul(f32x4.mul(d, factor), v128.load(row + at)), width - c);
      storeLanes(dUp + to + at, f32x4.mul(d, value), width - c);
    }
  }
}
