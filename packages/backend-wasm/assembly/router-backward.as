// The gradient of the routing weights with respect to the router logits; none flows through the choice of the ids.
// With g = gradWeights and w the weights (recomputed):
//
//     d = g w, or normalised d = w (g - sum over the token's k of g w)
//     gradLogits of x key a (+)= sum over the pairs with i = a of d - softmax(lx)[a] * sum of all d;  y likewise
//
// One token at a time, in f64; the exponentials of the softmax are taken once, for the weights too. The pairs are
// scattered in the order of their slots. Most keys have no pair, and get the second term alone.

import { high64, join32, low64 } from "./math";
import { axisMax, axisTerms, tokenWeights } from "./router-weights";
import { partLength, roundUp } from "./tasks";

/** Bytes of scratch a thread needs. */
export function routerBackwardScratchBytes(keysX: usize, keysY: usize, topK: usize): usize {
  return roundUp((2 * (keysX + keysY) + topK) * 8, 64);
}

/**
 * `logits`, `gradLogits` [T, X + Y] f32, `ids` [T, k] i32, `gradWeights` [T, k] f32. Returns the number (t k + slot)
 * of the first id of the part that is not below X * Y, which counts as absent, or -1. A part is `perTask` tokens.
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
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): i32 {
  const first = task * perTask;
  const count = partLength(tokens, perTask, task);
  logits += first * (keysX + keysY) * 4;
  gradLogits += first * (keysX + keysY) * 4;
  ids += first * topK * 4;
  gradWeights += first * topK * 4;
  const weights = scratch + thread * routerBackwardScratchBytes(keysX, keysY, topK);
  const sums = weights + topK * 8;
  const terms = sums + (keysX + keysY) * 8;
  let wrong: i32 = -1;
  for (let t = first; t < first + count; t++) {
    const logitsY = logits + keysX * 4;
    const maxX = axisMax(logits, keysX);
    const maxY = axisMax(logitsY, keysY);
    const sumX = axisTerms(logits, keysX, maxX, terms);
    const sumY = axisTerms(logitsY, keysY, maxY, terms + keysX * 8);
    tokenWeights(
      logits,
      keysX,
      keysY,
      topK,
      normalizeWeights,
      ids,
      maxX,
      sumX,
      maxY,
      sumY,
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
    storeAxis(keysX, terms, total / sumX, sums, gradLogits, accumulate);
    storeAxis(keysY, terms + keysX * 8, total / sumY, sums + keysX * 8, gradLogits + keysX * 4, accumulate);
    logits += (keysX + keysY) * 4;
    gradLogits += (keysX + keysY) * 4;
    ids += topK * 4;
    gradWeights += topK * 4;
  }
  return wrong;
}

/** gradLogits (+)= sums - terms * scale, for one axis of one token. */
function storeAxis(
  keys: usize,
  terms: usize,
  scale: f64,
  sums: usize,
  gradLogits: usize,
  accumulate: bool,
): void {
  const scales = f64x2.splat(scale);
  let key: usize = 0;
  for (; key + 4 <= keys; key += 4) {
    const at = key * 8;
    let low = f64x2.sub(v128.load(sums + at), f64x2.mul(v128.load(terms + at), scales));
    let high = f64x2.sub(v128.load(sums + at, 16), f64x2.mul(v128.load(terms + at, 16), scales));
    const to = gradLogits + key * 4;
    if (accumulate) {
      low = f64x2.add(low, low64(v128.load(to)));
      high = f64x2.add(high, high64(v128.load(to)));
    }
    v128.store(to, join32(low, high));
  }
  for (; key < keys; key++) {
    const to = gradLogits + key * 4;
    let grad = load<f64>(sums + key * 8) - load<f64>(terms + key * 8) * scale;
    if (accumulate) grad += <f64>load<f32>(to);
    store<f32>(to, <f32>grad);
  }
}
