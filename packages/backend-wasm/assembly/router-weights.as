// The routing weights of one token, shared by forward and backward. With i = id / Y and j = id mod Y:
//
//     p = log_softmax(lx)[i] + log_softmax(ly)[j],   w = exp(p), or normalised w = exp(p) / sum of exp(p)
//
// in f64 inside, but for the terms of forward's sums, from the logits as they are. A key at -infinity gets weight 0; NaN,
// +infinity, or an axis of nothing but -infinity makes every weight of the token NaN.

import { exp1, exp64, expTerm32, high64, log1, low64 } from "./math";

/** The largest logit; NaN is passed over. */
export function axisMax(logits: usize, keys: usize): f64 {
  let max = f32x4.splat(-Infinity);
  let key: usize = 0;
  for (; key + 4 <= keys; key += 4) {
    const four = v128.load(logits + key * 4);
    max = v128.bitselect(four, max, f32x4.gt(four, max));
  }
  let best = f32x4.extract_lane(max, 0);
  best = larger(f32x4.extract_lane(max, 1), best);
  best = larger(f32x4.extract_lane(max, 2), best);
  best = larger(f32x4.extract_lane(max, 3), best);
  for (; key < keys; key++) best = larger(load<f32>(logits + key * 4), best);
  return best;
}

@inline
function larger(candidate: f32, best: f32): f32 {
  return candidate > best ? candidate : best;
}

/** The sum of exp(logit - max), the terms in f32: they are most of forward's work where keys are many. */
export function axisSum(logits: usize, keys: usize, max: f64): f64 {
  const shift = f32x4.splat(<f32>max);
  let sum = f64x2.splat(0);
  let key: usize = 0;
  for (; key + 8 <= keys; key += 8) {
    const at = logits + key * 4;
    const a = expTerm32(f32x4.sub(v128.load(at), shift));
    const b = expTerm32(f32x4.sub(v128.load(at, 16), shift));
    const pairs = f32x4.add(a, b);
    sum = f64x2.add(sum, f64x2.add(low64(pairs), high64(pairs)));
  }
  let total = f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
  for (; key < keys; key++) total += exp1(<f64>load<f32>(logits + key * 4) - max);
  return total;
}

/** exp(logit - max) into f64 [keys]; returns their sum. */
export function axisTerms(logits: usize, keys: usize, max: f64, terms: usize): f64 {
  const shift = f64x2.splat(max);
  let sum = f64x2.splat(0);
  let key: usize = 0;
  for (; key + 4 <= keys; key += 4) {
    const four = v128.load(logits + key * 4);
    const low = exp64(f64x2.sub(low64(four), shift));
    const high = exp64(f64x2.sub(high64(four), shift));
    sum = f64x2.add(f64x2.add(sum, low), high);
    v128.store(terms + key * 8, low);
    v128.store(terms + key * 8, high, 16);
  }
  let total = f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
  for (; key < keys; key++) {
    const term = exp1(<f64>load<f32>(logits + key * 4) - max);
    store<f64>(terms + key * 8, term);
    total += term;
  }
  return total;
}

/**
 * The weights of a token into f64 [k], from the largest logit of each axis and the sum that goes with it. An id
 * that is not below X * Y has weight 0.
 */
export function tokenWeights(
  logits: usize,
  keysX: u32,
  keysY: u32,
  topK: usize,
  normalizeWeights: bool,
  ids: usize,
  maxX: f64,
  sumX: f64,
  maxY: f64,
  sumY: f64,
  weights: usize,
): void {
  const logitsY = logits + keysX * 4;
  const logSumX = log1(sumX);
  const logSumY = log1(sumY);
  let best: f64 = -Infinity;
  for (let slot: usize = 0; slot < topK; slot++) {
    const id = load<u32>(ids + slot * 4);
    let p: f64 = -Infinity;
    const i = id / keysY;
    if (i < keysX) {
      const j = id - i * keysY;
      const logX = <f64>load<f32>(logits + i * 4) - maxX - logSumX;
      const logY = <f64>load<f32>(logitsY + j * 4) - maxY - logSumY;
      p = logX + logY;
      if (p > best) best = p;
    }
    store<f64>(weights + slot * 8, p);
  }
  const shift = f64x2.splat(normalizeWeights ? best : 0);
  let slot: usize = 0;
  for (; slot + 2 <= topK; slot += 2) {
    v128.store(weights + slot * 8, exp64(f64x2.sub(v128.load(weights + slot * 8), shift)));
  }
  if (slot < topK) {
    const last = f64x2.splat(load<f64>(weights + slot * 8));
    v128.store64_lane(weights + slot * 8, exp64(f64x2.sub(last, shift)), 0);
  }
  if (!normalizeWeights) return;
  let sum: f64 = 0;
  for (slot = 0; slot < topK; slot++) sum += load<f64>(weights + slot * 8);
  for (slot = 0; slot < topK; slot++) store<f64>(weights + slot * 8, load<f64>(weights + slot * 8) / sum);
}
