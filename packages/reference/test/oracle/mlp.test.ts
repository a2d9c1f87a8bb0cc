import { describe, expect, test } from "vitest";
import { mlpBackward, mlpForward } from "../../src/oracle/index.js";
import { expectGradient, inner } from "./finite-differences.js";
import { createRandom, normals } from "./random.js";

test("one token, by hand", () => {
  const output = mlpForward({
    tokens: 1,
    hiddenSize: 2,
    intermediateSize: 2,
    activation: "relu",
    hiddenStates: new Float64Array([1, 2]),
    gate: new Float64Array([1, 1, -1, 0]),
    up: new Float64Array([2, 0, 5, 5]),
    down: new Float64Array([1, 100, 7, 100]),
  });
  // x gate^T = [3, -1], relu = [3, 0], x up^T = [2, 15], so the intermediate is [6, 0].
  expect([...output]).toEqual([6, 42]);
});

describe.each(["silu", "gelu", "gelu_tanh", "relu"] as const)("backward with %s", (activation) => {
  test("agrees with finite differences in every argument", () => {
    const random = createRandom(11);
    const [tokens, hiddenSize, intermediateSize] = [5, 6, 7];
    const hiddenStates = normals(random, tokens * hiddenSize);
    const gate = normals(random, intermediateSize * hiddenSize);
    const up = normals(random, intermediateSize * hiddenSize);
    const down = normals(random, hiddenSize * intermediateSize);
    const gradOutput = normals(random, tokens * hiddenSize);
    const call = { tokens, hiddenSize, intermediateSize, activation, hiddenStates, gate, up, down };
    const result = mlpBackward({ ...call, gradOutput });
    const loss = () => inner(mlpForward(call), gradOutput);
    expectGradient("hiddenStates", loss, hiddenStates, result.gradHiddenStates);
    expectGradient("gate", loss, gate, result.gradGate);
    expectGradient("up", loss, up, result.gradUp);
    expectGradient("down", loss, down, result.gradDown);
  });
});

test("no tokens give no output and zero gradients of the weights", () => {
  const empty = new Float64Array(0);
  const weight = new Float64Array([1, 2, 3, 4, 5, 6]);
  const call = { tokens: 0, hiddenSize: 2, intermediateSize: 3, activation: "silu" as const };
  const tensors = { hiddenStates: empty, gate: weight, up: weight, down: weight };
  expect(mlpForward({ ...call, ...tensors })).toHaveLength(0);
  const result = mlpBackward({ ...call, ...tensors, gradOutput: empty });
  expect(result.gradHiddenStates).toHaveLength(0);
  for (const gradient of [result.gradGate, result.gradUp, result.gradDown]) {
    expect([...gradient]).toEqual([0, 0, 0, 0, 0, 0]);
  }
});
