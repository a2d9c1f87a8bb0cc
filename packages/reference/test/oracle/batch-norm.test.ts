import { expect, test } from "vitest";
import {
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
} from "../../src/oracle/index.js";
import { expectGradient, inner } from "./finite-differences.js";
import { createRandom, normals } from "./random.js";

const epsilon = 1e-5;

test("training normalises with the statistics of the batch and updates the running ones", () => {
  const result = batchNormTrainingForward({
    tokens: 4,
    features: 2,
    epsilon: 1,
    momentum: 0.1,
    input: new Float64Array([1, 10, 3, 10, 5, 10, 7, 10]),
    runningMean: new Float64Array([2, 0]),
    runningVariance: new Float64Array([3, 1]),
  });
  // First feature: 1, 3, 5, 7 has mean 4, biased variance 5 and unbiased variance 20/3. Second: constant.
  expect([...result.mean]).toEqual([4, 10]);
  expect([...result.variance]).toEqual([5, 0]);
  const r = 1 / Math.sqrt(6);
  expect([...result.output]).toEqual([-3 * r, 0, -1 * r, 0, 1 * r, 0, 3 * r, 0]);
  expect(result.runningMean[0]).toBeCloseTo(0.9 * 2 + 0.1 * 4, 14);
  expect(result.runningVariance[0]).toBeCloseTo(0.9 * 3 + (0.1 * 20) / 3, 14);
  expect(result.runningMean[1]).toBeCloseTo(1, 14);
  expect(result.runningVariance[1]).toBeCloseTo(0.9, 14);
});

test("a large mean does not cost the variance its digits", () => {
  const offset = 2 ** 30;
  const { variance } = batchNormTrainingForward({
    tokens: 4,
    features: 1,
    epsilon,
    momentum: 0.1,
    input: new Float64Array([1, 3, 5, 7]).map((value) => value + offset),
    runningMean: new Float64Array(1),
    runningVariance: new Float64Array(1),
  });
  expect(variance[0]).toBe(5);
});

test("evaluation uses the statistics it is given, and no tokens give no output", () => {
  const given = {
    features: 2,
    epsilon: 0,
    mean: new Float64Array([1, 2]),
    variance: new Float64Array([4, 16]),
  };
  const input = new Float64Array([3, 2, -1, 6]);
  expect([...batchNormEvaluationForward({ ...given, tokens: 2, input })]).toEqual([1, 0, -1, 1]);
  expect(batchNormEvaluationForward({ ...given, tokens: 0, input: new Float64Array(0) })).toHaveLength(0);
});

const random = createRandom(3);
const [tokens, features] = [7, 4];
const input = normals(random, tokens * features).map((value, n) => value * ((n % features) + 0.5) + 2);
const gradOutput = normals(random, tokens * features);
const mean = normals(random, features);
const variance = normals(random, features).map((value) => value * value + 0.1);

test("the training backward agrees with finite differences through the statistics", () => {
  const shape = { tokens, features, epsilon, input };
  const forward = () =>
    batchNormTrainingForward({ ...shape, momentum: 0.1, runningMean: mean, runningVariance: variance });
  const statistics = forward();
  const gradInput = batchNormBackward({
    ...shape,
    training: true,
    mean: statistics.mean,
    variance: statistics.variance,
    gradOutput,
  });
  expectGradient("input", () => inner(forward().output, gradOutput), input, gradInput);
});

test("the evaluation backward agrees with finite differences", () => {
  const call = { tokens, features, epsilon, input, mean, variance };
  const gradInput = batchNormBackward({ ...call, training: false, gradOutput });
  expectGradient("input", () => inner(batchNormEvaluationForward(call), gradOutput), input, gradInput);
});
