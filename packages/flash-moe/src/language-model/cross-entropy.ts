import { byteValues } from "./config.js";

/**
 * Softmax cross-entropy of logits [T, 256] with the bytes that came, on the host in float64: the sum over
 * the tokens of -log2 softmax(logits)[target], in bits.
 *
 * With `gradient`, [T, 256], the gradient of the mean in nats is written there:
 * (softmax(logits) - onehot(target)) / T.
 */
export function crossEntropyBits(logits: Float32Array, targets: Uint8Array, gradient?: Float32Array): number {
  const tokens = targets.length;
  const exponentials = new Float64Array(byteValues);
  let nats = 0;
  for (let t = 0; t < tokens; t++) {
    const start = t * byteValues;
    let largest = Number.NEGATIVE_INFINITY;
    for (let value = 0; value < byteValues; value++) {
      if (logits[start + value] > largest) largest = logits[start + value];
    }
    let sum = 0;
    for (let value = 0; value < byteValues; value++) {
      exponentials[value] = Math.exp(logits[start + value] - largest);
      sum += exponentials[value];
    }
    const target = start + targets[t];
    nats += Math.log(sum) - (logits[target] - largest);
    if (gradient === undefined) continue;
    const scale = 1 / (sum * tokens);
    for (let value = 0; value < byteValues; value++) gradient[start + value] = exponentials[value] * scale;
    gradient[target] -= 1 / tokens;
  }
  return nats / Math.LN2;
}
