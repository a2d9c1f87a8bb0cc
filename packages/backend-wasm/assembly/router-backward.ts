// The gradient of the routing weights with respect to the router logits; none flows through the choice of the ids.
// With g = gradWeights and w the weights (recomputed):
//
//     d = g w, or normalised d = w (g - sum over the token's k of g w)
//     gradLogits of x key a (+)= sum over the pairs with i = a of d - softmax(lx)[a] * sum of all d;  y likewise
//
// One token at a time, in f64; the pairs are scattered in the order of their slots. Most keys have no pair, and get
// the second term alone.

import { exp64, high64, join32, low64 } from "./math";
import { axisLogSum, axisMax, tokenWeights } from "./router-weights";

/** Bytes of scratch that `routerSelectBackward` takes. */
export function routerBackwardScratchBytes(keysX: usize, keysY: usize, topK: usize): usize {
  return (keysX + keysY + topK + 4) * 8;
}

/**
 * `logits`, `gradLogits` [T, X + Y] f32, `ids` [T, k] i32, `gradWeights` [T, k] f32. Returns the number (t k + slot)
 * of the first id that is not below X * Y, which counts as absent, or -1.
 */
export function routerSelectBackward(
  tokens: usize,
  keysX: u32,
  keysY: u32,
  topK: usize,
  normalizeWeights: bool,
  logits: usize,
  ids: usize,
  gradWeights: usize,
  gradLogits: usize,
  accumulate: bool,
  scratch: usize,
): i32 {
  const weights = scratch;
  const sums = weights + topK * 8;
  let wrong: i32 = -1;
  for (let t: usize = 0; t < tokens; t++) {
    const logitsY = logits + keysX * 4;
    const maxX = axisMax(logits, keysX);
    const maxY = axisMax(logitsY, keysY);
    const logSumX = axisLogSum(logits, keysX, maxX);
    const logSumY = axisLogSum(logitsY, keysY, maxY);
    tokenWeights(
      logits,
      keysX,
      keysY,
      topK,
      normalizeWeights,
      ids,
      maxX,
      logSumX,
      maxY,
      logSumY,
      weights,
    );
    let mean: f64 = 0;
    if (normalizeWeights) {
      for (let slot: usize = 0; slot < topK; slot++) {
        mean += <f64>load<f32>(gradWeights + slot * 4) * load<f64>(weights + slot * 8);
      }
    }
    memory.fill(sums, 0, (keysX + keysY) * 8);
    let total: f64 = 0;
    for (let slot: usize = 0; slot < topK; slot++) {
      const id = load<u32>(ids + slot * 4);
      const i = id / keysY;
      if (i >= keysX) {
        if (wrong < 0) wrong = <i32>(t * topK + slot);
        continue;
      }
      const d = load<f64>(weights + slot * 8) * (<f64>load<f32>(gradWeights + slot * 4) - mean);
      const toX = sums + i * 8;
      const toY = sums + (keysX + (id - i * keysY)) * 8;
      store<f64>(toX, load<f64>(toX) + d);
      store<f64>(toY, load<f64>(toY) + d);
      total += d;
    }
    storeAxis(logits, keysX, maxX, logSumX, total, sums, gradLogits, accumulate);
    storeAxis(logitsY, keysY, maxY, logSumY, total, sums + keysX * 8, gradLogits + keysX * 4, accumulate);
    logits += (keysX + keysY) * 4;
    gradLogits += (keysX + keysY) * 4;
    ids += topK * 4;
    gradWeights += topK * 4;
  }
  return wrong;
}

/** gradLogits (+)= sums - softmax * total, for one axis of one token. */
function storeAxis(
  logits: usize,
  keys: usize,
  max: f64,
  logSum: f64,
  total: f64,
  sums: usize,
  gradLogits: usize,
  accumulate: bool,
): void {
  const shift = f64x2.splat(max);
  const log = f64x2.splat(logSum);
  const scale = f64x2.splat(total);
  let key: usize = 0;
  for (; key + 4 <= keys; key += 4) {
    const four = v128.load(logits + key * 4);
    const low = exp64(f64x2.sub(f64x2.sub(low64(four), shift), log));
    const high = exp64(f64x2.sub(f64x2.sub(high64(four), shift), log));
    let gradLow = f64x2.sub(v128.load(sums + key * 8), f64x2.mul(low, scale));
    let gradHigh = f64x2.sub(v128.load(sums + key * 8, 16), f64x2.mul(high, scale));
    const to = gradLogits + key * 4;
    if (accumulate) {
      gradLow = f64x2.add(gradLow, low64(v128.load(to)));
      gradHigh = f64x2.add(gradHigh, high64(v128.load(to)));
    }
    v128.store(to, join32(gradLow, gradHigh));
  }
  for (; key < keys; key++) {
    const logit = <f64>load<f32>(logits + key * 4);
    const softmax = f64x2.extract_lane(exp64(f64x2.splat(logit - max - logSum)), 0);
    const to = gradLogits + key * 4;
    let grad = load<f64>(sums + key * 8) - softmax * total;
    if (accumulate) grad += <f64>load<f32>(to);
    store<f32>(to, <f32>grad);
  }
}
