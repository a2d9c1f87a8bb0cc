import type { OpCalls } from "@flash-moe/core";
import { selectPairs } from "@flash-moe/reference/oracle";
import type { Device, Numbers } from "./device.js";

const f = Math.fround;

/** Log-softmax of one axis. */
function logSoftmax(device: Device, logits: Numbers, start: number, keys: number): Float32Array {
  let max = Number.NEGATIVE_INFINITY;
  for (let key = 0; key < keys; key++) if (logits[start + key] > max) max = logits[start + key];
  const shifted = Float32Array.from({ length: keys }, (_, key) => f(logits[start + key] - max));
  const sum = device.dot(
    keys,
    (key) => device.exp(shifted[key]),
    () => 1,
  );
  const logSum = f(Math.log(sum));
  return shifted.map((value) => f(value - logSum));
}

/** Log-softmaxes and weights of one token; an id of no expert has weight 0. */
function tokenWeights(
  device: Device,
  call: OpCalls["routerSelectForward"] | OpCalls["routerSelectBackward"],
  logits: Numbers,
  ids: Numbers,
  token: number,
): { x: Float32Array; y: Float32Array; weights: Float32Array } {
  const { keysX, keysY, topK, normalizeWeights } = call;
  const start = token * (keysX + keysY);
  const x = logSoftmax(device, logits, start, keysX);
  const y = logSoftmax(device, logits, start + keysX, keysY);
  const scores = Float32Array.from({ length: topK }, (_, slot) => {
    const id = ids[token * topK + slot];
    if (id < 0 || id >= keysX * keysY) return Number.NEGATIVE_INFINITY;
    return f(x[Math.floor(id / keysY)] + y[id % keysY]);
  });
  if (!normalizeWeights) return { x, y, weights: scores.map((score) => device.exp(score)) };
  const best = scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
  const terms = scores.map((score) => device.exp(f(score - best)));
  const sum = device.dot(
    topK,
    (slot) => terms[slot],
    () => 1,
  );
  return { x, y, weights: terms.map((value) => f(value / sum)) };
}

export async function routerSelectForward(
  device: Device,
  call: OpCalls["routerSelectForward"],
): Promise<void> {
  const { tokens, keysX, keysY, topK } = call;
  const logits = (await device.read(call.logits)) as Float32Array;
  const ids = new Int32Array(tokens * topK);
  const weights = new Float32Array(tokens * topK);
  for (let t = 0; t < tokens; t++) {
    const own = logits.subarray(t * (keysX + keysY), (t + 1) * (keysX + keysY));
    ids.set(selectPairs(own, { keysX, keysY, topK }), t * topK);
    weights.set(tokenWeights(device, call, logits, ids, t).weights, t * topK);
  }
  await device.store(call.ids, ids);
  await device.store(call.weights, weights);
}

export async function routerSelectBackward(
  device: Device,
  call: OpCalls["routerSelectBackward"],
): Promise<void> {
  const { tokens, keysX, keysY, topK, normalizeWeights } = call;
  const logits = await device.read(call.logits);
  const ids = await device.read(call.ids);
  const grads = await device.read(call.gradWeights);
  const result = new Float32Array(tokens * (keysX + keysY));
  for (let t = 0; t < tokens; t++) {
    const { x, y, weights } = tokenWeights(device, call, logits, ids, t);
    const own = grads.subarray(t * topK, (t + 1) * topK);
    const mean = normalizeWeights
      ? device.dot(
          topK,
          (slot) => weights[slot],
          (slot) => own[slot],
        )
      : 0;
    const scores = weights.map((weight, slot) => f(weight * f(own[slot] - mean)));
    const total = device.dot(
      topK,
      (slot) => scores[slot],
      () => 1,
    );
    const start = t * (keysX + keysY);
    for (let slot = 0; slot < topK; slot++) {
      const id = ids[t * topK + slot];
      if (id < 0 || id >= keysX * keysY) continue;
      result[start + Math.floor(id / keysY)] += scores[slot];
      result[start + keysX + (id % keysY)] += scores[slot];
    }
    [...x, ...y].forEach((log, key) => {
      result[start + key] -= f(device.exp(log) * total);
    });
  }
  await device.store(call.gradLogits, result, call.accumulate !== undefined);
}
