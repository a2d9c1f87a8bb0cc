import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  activationFunction,
  type ExpertsBackwardParams,
  expertsBackward,
  expertsForward,
  expertsTableGradients,
  groupPairsByExpert,
  routerSelectForward,
  rowsOf,
} from "../../src/oracle/index.js";
import { expectGradient, inner } from "./finite-differences.js";
import { createRandom, integer, normals } from "./random.js";

const activations = ["silu", "gelu", "gelu_tanh", "relu"] as const;

interface Case extends ExpertsBackwardParams {
  downTable: Float64Array;
  upTable: Float64Array;
}

function makeCase(seed: number, overrides: Partial<ExpertsBackwardParams> = {}): Case {
  const random = createRandom(seed);
  const shape = {
    tokens: 5,
    hiddenSize: 6,
    numExperts: 9,
    topK: 4,
    activation: "silu" as const,
    ...overrides,
  };
  const { tokens, hiddenSize, numExperts, topK } = shape;
  const downTable = normals(random, numExperts * hiddenSize);
  const upTable = normals(random, numExperts * hiddenSize);
  return {
    hiddenStates: normals(random, tokens * hiddenSize),
    ids: Int32Array.from({ length: tokens * topK }, () => integer(random, 0, numExperts - 1)),
    weights: normals(random, tokens * topK),
    gradOutput: normals(random, tokens * hiddenSize),
    down: rowsOf(downTable, hiddenSize),
    up: rowsOf(upTable, hiddenSize),
    downTable,
    upTable,
    ...shape,
  };
}

test("one expert, by hand", () => {
  const output = expertsForward({
    tokens: 1,
    hiddenSize: 2,
    numExperts: 2,
    topK: 1,
    activation: "relu",
    hiddenStates: new Float64Array([1, 2]),
    down: rowsOf(new Float64Array([0, 0, 3, 4]), 2),
    up: rowsOf(new Float64Array([0, 0, 5, 6]), 2),
    ids: new Int32Array([1]),
    weights: new Float64Array([0.5]),
  });
  // a = 1 * 3 + 2 * 4 = 11.
  expect([...output]).toEqual([11 * 0.5 * 5, 11 * 0.5 * 6]);
});

test("with k = N the output is the dense sum over all experts", () => {
  fc.assert(
    fc.property(fc.integer(), fc.constantFrom(...activations), (seed, activation) => {
      const random = createRandom(seed);
      const [keysX, keysY] = [integer(random, 1, 5), integer(random, 1, 5)];
      const numExperts = keysX * keysY;
      const [tokens, hiddenSize] = [3, integer(random, 1, 9)];
      const logits = Float32Array.from(normals(random, tokens * (keysX + keysY)));
      const router = { tokens, keysX, keysY, topK: numExperts, normalizeWeights: false, logits };
      const { ids, weights } = routerSelectForward(router);
      const sizes = { tokens, hiddenSize, numExperts, topK: numExperts, activation };
      const call = { ...makeCase(seed, sizes), ids, weights };
      const output = expertsForward(call);

      const act = activationFunction(activation);
      const softmax = (values: Float32Array) => {
        const powers = [...values].map(Math.exp);
        const sum = powers.reduce((a, b) => a + b);
        return powers.map((power) => power / sum);
      };
      for (let t = 0; t < tokens; t++) {
        const start = t * (keysX + keysY);
        const px = softmax(logits.subarray(start, start + keysX));
        const py = softmax(logits.subarray(start + keysX, start + keysX + keysY));
        const x = call.hiddenStates.subarray(t * hiddenSize, (t + 1) * hiddenSize);
        const dense = new Float64Array(hiddenSize);
        for (let e = 0; e < numExperts; e++) {
          const a = inner(x, call.downTable.subarray(e * hiddenSize, (e + 1) * hiddenSize));
          const scale = act.value(a) * px[Math.floor(e / keysY)] * py[e % keysY];
          for (let h = 0; h < hiddenSize; h++) dense[h] += scale * call.upTable[e * hiddenSize + h];
        }
        for (let h = 0; h < hiddenSize; h++) expect(output[t * hiddenSize + h]).toBeCloseTo(dense[h], 11);
      }
    }),
    { numRuns: 50 },
  );
});

test("an expert that occurs twice in a token counts twice", () => {
  const call = makeCase(1, { tokens: 1, topK: 2 });
  const twice = { ...call, ids: new Int32Array([3, 3]), weights: new Float64Array([0.25, 0.5]) };
  const once = { ...call, topK: 1, ids: new Int32Array([3]), weights: new Float64Array([0.75]) };
  const outputs = [expertsForward(twice), expertsForward(once)];
  for (let h = 0; h < call.hiddenSize; h++) expect(outputs[0][h]).toBeCloseTo(outputs[1][h], 14);
  const gradients = [twice, once].map((each) => expertsTableGradients(each, expertsBackward(each)));
  expect([...gradients[0].ids]).toEqual([3]);
  for (let h = 0; h < call.hiddenSize; h++) {
    expect(gradients[0].down[h]).toBeCloseTo(gradients[1].down[h], 13);
    expect(gradients[0].up[h]).toBeCloseTo(gradients[1].up[h], 13);
  }
});

test("ids outside the tables add nothing, read nothing, and have no gradient", () => {
  const call = makeCase(2);
  call.ids.set([-1, call.numExperts, 2 ** 31 - 1, -(2 ** 31)]);
  const read = new Set<number>();
  const watched = (rows: typeof call.down) => (id: number, target: Float64Array) => {
    read.add(id);
    rows(id, target);
  };
  const guarded = { ...call, down: watched(call.down), up: watched(call.up) };
  expect([...expertsForward(guarded).subarray(0, call.hiddenSize)]).toEqual(
    new Array(call.hiddenSize).fill(0),
  );
  const result = expertsBackward(guarded);
  expect([...result.gradWeights.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
  const { ids } = expertsTableGradients(guarded, result);
  const used = [...new Set(call.ids.subarray(4))].sort((a, b) => a - b);
  expect([...ids]).toEqual(used);
  expect([...read].sort((a, b) => a - b)).toEqual(used);
});

test("a table of 1,048,576 rows is read only where it is used", () => {
  const numExperts = 1_048_576;
  const row = (id: number, target: Float64Array) => target.fill(id / numExperts);
  const call = { ...makeCase(3), numExperts, down: row, up: row };
  call.ids.set([numExperts - 1, 0, 524_288, numExperts - 1]);
  const { ids, down } = expertsTableGradients(call, expertsBackward(call));
  expect(ids.at(-1)).toBe(numExperts - 1);
  expect(down).toHaveLength(ids.length * call.hiddenSize);
});

test("the order of tokens does not change a token's output", () => {
  const call = makeCase(4);
  const { tokens, hiddenSize, topK } = call;
  function reversed<A extends Float64Array | Int32Array>(values: A, width: number): A {
    const result = values.slice() as A;
    for (let t = 0; t < tokens; t++) {
      result.set(values.subarray(t * width, (t + 1) * width), (tokens - 1 - t) * width);
    }
    return result;
  }
  const backwards = {
    ...call,
    hiddenStates: reversed(call.hiddenStates, hiddenSize),
    ids: reversed(call.ids, topK),
    weights: reversed(call.weights, topK),
    gradOutput: reversed(call.gradOutput, hiddenSize),
  };
  expect(expertsForward(backwards)).toEqual(reversed(expertsForward(call), hiddenSize));
  expect(expertsBackward(backwards).gradHiddenStates).toEqual(
    reversed(expertsBackward(call).gradHiddenStates, hiddenSize),
  );
});

test("without the gradient of the hidden states, all others have the same bits", () => {
  const call = makeCase(7);
  const { gradHiddenStates, ...others } = expertsBackward({ ...call, skipGradHiddenStates: true });
  expect(gradHiddenStates).toHaveLength(0);
  expect(expertsBackward(call)).toMatchObject(others);
});

test("no tokens give empty results", () => {
  const call = makeCase(5, { tokens: 0 });
  expect(expertsForward(call)).toHaveLength(0);
  const result = expertsBackward(call);
  expect(result.gradHiddenStates).toHaveLength(0);
  const { ids, down } = expertsTableGradients(call, result);
  expect([ids.length, down.length]).toEqual([0, 0]);
});

describe.each(activations)("backward with %s", (activation) => {
  test.each([
    ["several experts, some repeated in a token", {}],
    ["one expert for all", { numExperts: 1, topK: 3 }],
    ["one token, k = 1", { tokens: 1, topK: 1 }],
  ])("%s agrees with finite differences", (_, sizes) => {
    const call = makeCase(6, { activation, ...sizes });
    const { hiddenSize, numExperts } = call;
    const result = expertsBackward(call);
    const tables = expertsTableGradients(call, result);
    const dense = (rows: Float64Array) => {
      const table = new Float64Array(numExperts * hiddenSize);
      for (const [r, id] of tables.ids.entries()) {
        table.set(rows.subarray(r * hiddenSize, (r + 1) * hiddenSize), id * hiddenSize);
      }
      return table;
    };
    const loss = () => inner(expertsForward(call), call.gradOutput);
    expectGradient("hiddenStates", loss, call.hiddenStates, result.gradHiddenStates);
    expectGradient("weights", loss, call.weights, result.gradWeights);
    expectGradient("down", loss, call.downTable, dense(tables.down));
    expectGradient("up", loss, call.upTable, dense(tables.up));
  });
});

test("pairs are grouped by expert, each group in the order of the pairs", () => {
  const sizes = fc.constantFrom(1, 2, 7, 2048, 2049, 100_000, 2 ** 22 + 1, 2 ** 31 - 1);
  fc.assert(
    fc.property(sizes, fc.integer(), fc.integer({ min: 0, max: 300 }), (numExperts, seed, length) => {
      const random = createRandom(seed);
      const spread = Math.min(numExperts, integer(random, 1, 2 ** 31 - 1));
      const ids = Int32Array.from({ length }, () =>
        random() < 0.1 ? -integer(random, 1, 5) : numExperts - 1 - integer(random, 0, spread - 1),
      );
      const groups = groupPairsByExpert(ids, numExperts);
      const expected = new Map<number, number[]>();
      for (const [pair, id] of ids.entries()) {
        if (id >= 0) expected.set(id, [...(expected.get(id) ?? []), pair]);
      }
      expect([...groups.ids]).toEqual([...expected.keys()].sort((a, b) => a - b));
      expect(groups.starts).toHaveLength(groups.ids.length + 1);
      for (const [r, id] of groups.ids.entries()) {
        expect([...groups.pairs.subarray(groups.starts[r], groups.starts[r + 1])]).toEqual(expected.get(id));
      }
    }),
  );
});
