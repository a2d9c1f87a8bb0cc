import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { routerSelectBackward, routerSelectForward, routingWeights } from "../../src/oracle/index.js";
import { expectGradient, inner } from "./finite-differences.js";
import { createRandom, integer, normals } from "./random.js";

const grid = { keysX: 3, keysY: 2 };

test("weights are the products of the two softmaxes, normalised over the k on demand", () => {
  const logits = new Float32Array([Math.log(1), Math.log(2), Math.log(5), Math.log(1), Math.log(3)]);
  const call = { ...grid, tokens: 1, topK: 2, logits };
  const plain = routerSelectForward({ ...call, normalizeWeights: false });
  expect([...plain.ids]).toEqual([5, 3]);
  expect(plain.weights[0]).toBeCloseTo((5 / 8) * (3 / 4), 6);
  expect(plain.weights[1]).toBeCloseTo((2 / 8) * (3 / 4), 6);
  const normalized = routerSelectForward({ ...call, normalizeWeights: true });
  expect(normalized.ids).toEqual(plain.ids);
  expect(normalized.weights[0]).toBeCloseTo(5 / 7, 6);
  expect(normalized.weights[1]).toBeCloseTo(2 / 7, 6);
});

test("with all experts, plain weights sum to 1", () => {
  const logits = Float32Array.from(normals(createRandom(1), 7 + 11, 3));
  const { weights } = routerSelectForward({
    tokens: 1,
    keysX: 7,
    keysY: 11,
    topK: 77,
    normalizeWeights: false,
    logits,
  });
  expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 14);
});

test("large logits do not overflow", () => {
  const logits = new Float32Array([3e38, -3e38, 3e38, 1e38, 1e38]);
  const { ids, weights } = routerSelectForward({
    ...grid,
    tokens: 1,
    topK: 4,
    normalizeWeights: false,
    logits,
  });
  expect([...ids]).toEqual([0, 1, 4, 5]);
  expect([...weights]).toEqual([0.25, 0.25, 0.25, 0.25]);
});

describe.each([false, true])("logits that are not finite, normalizeWeights %s", (normalizeWeights) => {
  const finite = [0, 1, 2, 0, 1];
  function weightsOf(...token: number[]): number[] {
    const logits = new Float32Array([...finite, ...token, ...finite]);
    const all = { ...grid, tokens: 3, topK: 6, normalizeWeights, logits };
    const { ids, weights } = routerSelectForward(all);
    for (const id of ids) expect(id >= 0 && id < 6).toBe(true);
    // The tokens before and after never notice.
    expect(weights.subarray(0, 6).every(Number.isFinite)).toBe(true);
    expect(weights.subarray(12)).toEqual(weights.subarray(0, 6));
    const gradLogits = routerSelectBackward({ ...all, ids, gradWeights: weights.map((_, n) => n) });
    expect(gradLogits.subarray(0, 5).every(Number.isFinite)).toBe(true);
    const own = gradLogits.subarray(5, 10);
    const ownWeights = weights.subarray(6, 12);
    // The gradient is finite where the weights are.
    expect(own.every(Number.isFinite)).toBe(ownWeights.every(Number.isFinite));
    return [...ownWeights];
  }

  test("-inf is a key of weight 0", () => {
    const weights = weightsOf(0, -Infinity, 2, 0, 0);
    expect(weights.slice(4)).toEqual([0, 0]);
    expect(weights.slice(0, 4).reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 14);
  });

  test.each([
    ["NaN", 0, NaN, 2, 0, 1],
    ["+inf", 0, 1, Infinity, 0, 1],
    ["an axis of -inf", 0, 1, 2, -Infinity, -Infinity],
  ])("%s makes all weights of its token NaN", (_, ...token) => {
    expect(weightsOf(...(token as number[]))).toEqual(new Array(6).fill(NaN));
  });
});

test("normalised weights of experts that all underflow are still right", () => {
  const logits = new Float32Array([0, -2000, -2001, 0, 0]);
  const ids = new Int32Array([2, 4]);
  const call = { ...grid, tokens: 1, topK: 2, logits, ids };
  expect([...routingWeights({ ...call, normalizeWeights: false })]).toEqual([0, 0]);
  const weights = routingWeights({ ...call, normalizeWeights: true });
  expect(weights[0]).toBeCloseTo(1 / (1 + Math.exp(-1)), 14);
  expect(weights[1]).toBeCloseTo(1 / (1 + Math.E), 14);
});

test.each([false, true])(
  "an id outside the grid has weight 0 and no gradient, normalizeWeights %s",
  (normalizeWeights) => {
    const logits = normals(createRandom(4), 5);
    const shape = { ...grid, tokens: 1, normalizeWeights, logits };
    const guarded = { ...shape, topK: 4, ids: new Int32Array([6, 2, -1, 5]) };
    const inside = { ...shape, topK: 2, ids: new Int32Array([2, 5]) };
    const [first, second] = routingWeights(inside);
    expect([...routingWeights(guarded)]).toEqual([0, first, 0, second]);
    expect(routerSelectBackward({ ...guarded, gradWeights: new Float64Array([9, 1, 9, -2]) })).toEqual(
      routerSelectBackward({ ...inside, gradWeights: new Float64Array([1, -2]) }),
    );
  },
);

test("no tokens give empty results", () => {
  const call = { ...grid, tokens: 0, topK: 2, normalizeWeights: true, logits: new Float32Array(0) };
  const { ids, weights } = routerSelectForward(call);
  expect([ids.length, weights.length]).toEqual([0, 0]);
  expect(routerSelectBackward({ ...call, ids, gradWeights: weights })).toHaveLength(0);
});

test("permuting tokens permutes the results, forward and backward", () => {
  const tokens = fc.integer({ min: 1, max: 6 });
  fc.assert(
    fc.property(tokens, fc.integer(), fc.boolean(), (count, seed, normalizeWeights) => {
      const random = createRandom(seed);
      const [keysX, keysY] = [integer(random, 1, 6), integer(random, 1, 6)];
      const topK = integer(random, 1, keysX * keysY);
      const shape = { tokens: count, keysX, keysY, topK, normalizeWeights };
      const logits = Float32Array.from(normals(random, count * (keysX + keysY)));
      const gradWeights = normals(random, count * topK);
      const order = Array.from({ length: count }, (_, n) => n).sort(() => random() - 0.5);
      function permuted<A extends Float32Array | Float64Array | Int32Array>(values: A): A {
        const width = values.length / count;
        const result = values.slice() as A;
        for (const [to, from] of order.entries()) {
          result.set(values.subarray(from * width, (from + 1) * width), to * width);
        }
        return result;
      }
      const before = routerSelectForward({ ...shape, logits });
      const after = routerSelectForward({ ...shape, logits: permuted(logits) });
      expect(after.ids).toEqual(permuted(before.ids));
      expect(after.weights).toEqual(permuted(before.weights));
      const gradBefore = routerSelectBackward({ ...shape, logits, ids: before.ids, gradWeights });
      const gradAfter = routerSelectBackward({
        ...shape,
        logits: permuted(logits),
        ids: after.ids,
        gradWeights: permuted(gradWeights),
      });
      expect(gradAfter).toEqual(permuted(gradBefore));
    }),
  );
});

describe.each([false, true])("backward, normalizeWeights %s", (normalizeWeights) => {
  test.each([
    [3, 5, 4],
    [4, 4, 1],
    [5, 3, 15],
    [1, 6, 3],
  ])("%i x %i keys, k = %i agrees with finite differences", (keysX, keysY, topK) => {
    const random = createRandom(keysX * 100 + topK);
    const tokens = 4;
    const logits = normals(random, tokens * (keysX + keysY));
    const shape = { tokens, keysX, keysY, topK, normalizeWeights };
    const { ids } = routerSelectForward({ ...shape, logits: Float32Array.from(logits) });
    const gradWeights = normals(random, tokens * topK);
    const gradLogits = routerSelectBackward({ ...shape, logits, ids, gradWeights });
    if (normalizeWeights && topK === 1) {
      // One weight, always 1.
      expect(gradLogits.every((value) => Math.abs(value) < 1e-15)).toBe(true);
      return;
    }
    const loss = () => inner(routingWeights({ ...shape, logits, ids }), gradWeights);
    expectGradient("logits", loss, logits, gradLogits);
  });

  test("ids from outside, with repeats, agree with finite differences", () => {
    const random = createRandom(9);
    const shape = { tokens: 2, keysX: 3, keysY: 4, topK: 5, normalizeWeights };
    const logits = normals(random, 2 * 7);
    const ids = Int32Array.from({ length: 10 }, () => integer(random, 0, 11));
    ids[1] = ids[0];
    const gradWeights = normals(random, 10);
    const loss = () => inner(routingWeights({ ...shape, logits, ids }), gradWeights);
    expectGradient("logits", loss, logits, routerSelectBackward({ ...shape, logits, ids, gradWeights }));
  });
});
