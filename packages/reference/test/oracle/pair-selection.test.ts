import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createPairSelector, selectPairs } from "../../src/oracle/index.js";
import { bruteForcePairs } from "./brute-force-pairs.js";
import { createRandom, integer, normals } from "./random.js";

/** The value cut to the 8 significant bits of bfloat16. */
function coarse(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] = (bits[0] + 0x8000) & 0xffff0000;
  return new Float32Array(bits.buffer)[0];
}

const specials = [
  NaN,
  Infinity,
  -Infinity,
  0,
  -0,
  3.4028234663852886e38,
  -3.4028234663852886e38,
  1e-45,
  1,
  -1,
];

/** Logits of one token, by kind. */
const kinds: Record<string, (random: () => number, length: number) => Float32Array> = {
  normal: (random, length) => Float32Array.from(normals(random, length)),
  coarse: (random, length) => Float32Array.from(normals(random, length), coarse),
  "small integers": (random, length) => Float32Array.from({ length }, () => integer(random, -2, 2)),
  "all equal": (random, length) => new Float32Array(length).fill(random() - 0.5),
  "sums that round away": (random, length) =>
    Float32Array.from({ length }, () => integer(random, 0, 3) * 2 ** 24 + integer(random, 0, 7)),
  specials: (random, length) => Float32Array.from({ length }, () => specials[integer(random, 0, 9)]),
  "some specials": (random, length) =>
    Float32Array.from(normals(random, length), (value) =>
      random() < 0.2 ? specials[integer(random, 0, 9)] : value,
    ),
  "signed zeros": (random, length) => Float32Array.from({ length }, () => (random() < 0.5 ? 0 : -0)),
  ascending: (random, length) => Float32Array.from({ length }, (_, n) => n + random() / 2),
};

describe("the pruned selection is the brute-force one, bit for bit", () => {
  test.each(Object.keys(kinds))("%s", (kind) => {
    const random = createRandom(kind.length);
    for (let round = 0; round < 600; round++) {
      const keysX = integer(random, 1, 24);
      const keysY = integer(random, 1, 24);
      const experts = keysX * keysY;
      const topK = [1, integer(random, 1, experts), Math.min(8, experts), experts][round % 4];
      const shape = { keysX, keysY, topK };
      const logits = kinds[kind](random, keysX + keysY);
      expect(selectPairs(logits, shape), JSON.stringify(shape)).toEqual(bruteForcePairs(logits, shape));
    }
  });

  const large: [keysX: number, keysY: number, topK: number][] = [
    [1024, 1024, 32],
    [1024, 1024, 1],
    [320, 320, 512],
    [320, 320, 4096],
    [100, 100, 10_000],
    [1, 5000, 3000],
    [5000, 1, 40],
    [700, 37, 64],
  ];
  test.each(large)("%i x %i keys, k = %i", (keysX, keysY, topK) => {
    const random = createRandom(keysX + topK);
    for (const kind of ["normal", "coarse", "some specials"]) {
      const logits = kinds[kind](random, keysX + keysY);
      const shape = { keysX, keysY, topK };
      expect(selectPairs(logits, shape)).toEqual(bruteForcePairs(logits, shape));
    }
  });
});

test("a hand-made case with ties", () => {
  // Axis x: key 1 (5) has rank 1, keys 0 and 2 (3) ranks 2 and 3. Axis y: key 1 (2), then key 0 (0).
  const logits = new Float32Array([3, 5, 3, 0, 2]);
  // Scores: (1,1) 0; (0,1) (2,1) (1,0) -2; (0,0) (2,0) -4. At -2, rank of i first: (1,0), (0,1), (2,1).
  expect([...selectPairs(logits, { keysX: 3, keysY: 2, topK: 6 })]).toEqual([3, 2, 1, 5, 0, 4]);
});

test("all-equal logits give the pairs in the order of their ids", () => {
  const logits = new Float32Array(40 + 30).fill(-7);
  expect(selectPairs(logits, { keysX: 40, keysY: 30, topK: 1200 })).toEqual(
    Int32Array.from({ length: 1200 }, (_, id) => id),
  );
});

test("NaN ranks with -inf and with the lowest finite logit, by index", () => {
  const logits = new Float32Array([-Infinity, NaN, -3.4028234663852886e38, -1, 0]);
  expect([...selectPairs(logits, { keysX: 4, keysY: 1, topK: 4 })]).toEqual([3, 0, 1, 2]);
});

test("+inf ranks with the highest finite logit, by index", () => {
  const logits = new Float32Array([1, 3.4028234663852886e38, Infinity, 0]);
  expect([...selectPairs(logits, { keysX: 3, keysY: 1, topK: 2 })]).toEqual([1, 2]);
});

const anyLogits = fc.record({
  x: fc.array(fc.float(), { minLength: 1, maxLength: 20 }),
  y: fc.array(fc.float(), { minLength: 1, maxLength: 20 }),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
});

test("the selection for k begins with the selection for every smaller k", () => {
  fc.assert(
    fc.property(anyLogits, ({ x, y, share }) => {
      const logits = new Float32Array([...x, ...y]);
      const grid = { keysX: x.length, keysY: y.length };
      const experts = x.length * y.length;
      const topK = 1 + Math.floor(share * (experts - 1));
      const all = selectPairs(logits, { ...grid, topK: experts });
      expect(new Set(all).size).toBe(experts);
      expect(selectPairs(logits, { ...grid, topK })).toEqual(all.subarray(0, topK));
    }),
  );
});

test("any float32 logits give the brute-force selection", () => {
  fc.assert(
    fc.property(anyLogits, ({ x, y, share }) => {
      const topK = 1 + Math.floor(share * (x.length * y.length - 1));
      const shape = { keysX: x.length, keysY: y.length, topK };
      const logits = new Float32Array([...x, ...y]);
      expect(selectPairs(logits, shape)).toEqual(bruteForcePairs(logits, shape));
    }),
    { numRuns: 1000 },
  );
});

test("a selector keeps nothing of one token for the next", () => {
  const random = createRandom(5);
  const shape = { keysX: 13, keysY: 9, topK: 20 };
  const select = createPairSelector(shape);
  const ids = new Int32Array(50 * 20);
  const logits = new Float32Array(50 * 22);
  for (let t = 0; t < 50; t++) logits.set(kinds["some specials"](random, 22), t * 22);
  for (let t = 0; t < 50; t++) select(logits, t * 22, ids, t * 20);
  for (let t = 0; t < 50; t++) {
    expect(ids.slice(t * 20, (t + 1) * 20)).toEqual(selectPairs(logits.slice(t * 22, (t + 1) * 22), shape));
  }
});
