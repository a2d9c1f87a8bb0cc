import { describe, expect, it } from "vitest";
import { crossEntropyBits } from "../../src/language-model/cross-entropy.js";

const tokens = 3;
const logits = Float32Array.from({ length: tokens * 256 }, (_, i) => 4 * Math.sin(i * 1.7));
const targets = Uint8Array.of(0, 200, 255);

describe("crossEntropyBits", () => {
  it("is 8 bits a byte where all logits are equal, however large they are", () => {
    expect(crossEntropyBits(new Float32Array(256).fill(1e30), Uint8Array.of(7))).toBeCloseTo(8, 12);
  });

  it("is the sum of -log2 of the targets' softmax", () => {
    let expected = 0;
    targets.forEach((target, t) => {
      const row = [...logits.subarray(t * 256, (t + 1) * 256)].map(Math.exp);
      expected -= Math.log2(row[target] / row.reduce((sum, value) => sum + value, 0));
    });
    expect(crossEntropyBits(logits, targets)).toBeCloseTo(expected, 10);
  });

  it("gives the gradient of the mean in nats", () => {
    const gradient = new Float32Array(logits.length);
    crossEntropyBits(logits, targets, gradient);
    const meanNats = (values: Float32Array): number =>
      (crossEntropyBits(values, targets) * Math.LN2) / tokens;
    for (const at of [0, 1, 256 + 200, 256 + 199, 767]) {
      const above = logits.slice();
      const below = logits.slice();
      above[at] += 2 ** -8;
      below[at] -= 2 ** -8;
      const numeric = (meanNats(above) - meanNats(below)) / (above[at] - below[at]);
      expect(gradient[at]).toBeCloseTo(numeric, 5);
    }
  });

  it("is not a number where a logit is not", () => {
    const broken = logits.slice();
    broken[300] = Number.NaN;
    expect(crossEntropyBits(broken, targets)).toBeNaN();
  });
});
