import { type Backend, SeededRandom } from "@flash-moe/core";
import { afterAll, beforeAll, expect } from "vitest";
import { itOnAdapter, openBackend, withoutAdapter } from "./helpers/open.js";

let backend: Backend;
beforeAll(async () => {
  if (!withoutAdapter) backend = await openBackend();
});
afterAll(() => backend?.dispose());

const [tokens, features] = [33, 5];

/** For each feature, its sum over the tokens, over the sum of what it adds without the signs. */
function unbalance(values: ArrayLike<number>): number[] {
  return Array.from({ length: features }, (_, f) => {
    let sum = 0;
    let size = 0;
    for (let t = 0; t < tokens; t++) {
      sum += values[t * features + f];
      size += Math.abs(values[t * features + f]);
    }
    return Math.abs(sum) / size;
  });
}

// Rounded to f32, a mean of 1,000 is off by up to 3e-5, and so would every token be.
itOnAdapter("training keeps the batch and its gradient centred, however far from 0 it is", async () => {
  const random = new SeededRandom(1);
  const shape = [tokens, features];
  const normals = (mean: number): Float32Array =>
    Float32Array.from({ length: tokens * features }, () => mean + random.normal());
  const output = backend.zeros(shape);
  const gradInput = backend.zeros(shape);
  const [mean, variance, runningMean, runningVariance] = [0, 0, 0, 0].map(
    () => backend.zeros([features]).buffer,
  );
  const input = backend.upload(normals(1000), shape).buffer;
  const call = { tokens, features, epsilon: 1e-5, input, mean, variance, training: true } as const;
  const running = { runningMean, runningVariance };
  backend.ops.batchNormForward({ ...call, ...running, momentum: 0.1, output: output.buffer });
  const gradOutput = backend.upload(normals(0), shape).buffer;
  backend.ops.batchNormBackward({ ...call, gradOutput, gradInput: gradInput.buffer });
  for (const values of [await output.read(), await gradInput.read()]) {
    expect(Math.max(...unbalance(values))).toBeLessThan(1e-6);
  }
});
