import { type Backend, SeededRandom } from "@flash-moe/core";
import { batchNormBackward, batchNormTrainingForward } from "@flash-moe/reference/oracle";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { wasm } from "../src/index.js";

let backend: Backend;
beforeAll(async () => {
  backend = await wasm.open();
});
afterAll(() => backend.dispose());

const features = 21;
const epsilon = 1e-5;

/** Largest difference over the largest value. */
function error(actual: ArrayLike<number>, expected: Float64Array): number {
  const scale = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, n) => Math.abs(value - actual[n]))) / scale;
}

describe("training keeps its digits where the saved statistics, rounded to f32, would lose them", () => {
  it.each([
    ["two tokens, whose gradient nearly cancels", 2, 0],
    ["two tokens far from 0", 2, 1000],
    ["a mean of 1,000 deviations", 33, 1000],
  ])("%s", async (_, tokens, offset) => {
    const random = new SeededRandom(tokens);
    const normals = (length: number, mean: number): Float32Array =>
      Float32Array.from({ length }, () => mean + random.normal());
    const input = normals(tokens * features, offset);
    const gradOutput = normals(tokens * features, 0);
    const [x, output, gradInput] = [
      backend.upload(input, [tokens, features]),
      backend.zeros([tokens, features]),
      backend.zeros([tokens, features]),
    ];
    const [mean, variance, runningMean, runningVariance] = [0, 0, 0, 0].map(
      () => backend.zeros([features]).buffer,
    );
    const call = { tokens, features, epsilon, input: x.buffer, mean, variance, training: true } as const;
    const running = { runningMean, runningVariance };
    backend.ops.batchNormForward({ ...call, ...running, momentum: 0.1, output: output.buffer });
    backend.ops.batchNormBackward({
      ...call,
      gradOutput: backend.upload(gradOutput, [tokens, features]).buffer,
      gradInput: gradInput.buffer,
    });
    const zeros = new Float64Array(features);
    const numbers = { tokens, features, epsilon, input };
    const expected = batchNormTrainingForward({
      ...numbers,
      momentum: 0.1,
      runningMean: zeros,
      runningVariance: zeros,
    });
    expect(error(await output.read(), expected.output)).toBeLessThan(1e-7);
    const { mean: batchMean, variance: batchVariance } = expected;
    const gradient = batchNormBackward({
      ...numbers,
      training: true,
      mean: batchMean,
      variance: batchVariance,
      gradOutput,
    });
    expect(error(await gradInput.read(), gradient)).toBeLessThan(1e-7);
  });
});
