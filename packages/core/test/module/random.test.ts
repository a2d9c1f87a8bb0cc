import { SeededRandom } from "@flash-moe/core";
import { expect, it } from "vitest";
import { expectThrow } from "../helpers/expect-error.js";

it("gives the same numbers for the same seed, others for another, whatever the run", () => {
  const take = (seed: number) => {
    const random = new SeededRandom(seed);
    return Array.from({ length: 4 }, () => random.nextUint32());
  };
  expect(take(1)).toEqual(take(1));
  expect(take(1)).not.toEqual(take(2));
  expect(take(2 ** 32 + 1), "the low 32 bits count").toEqual(take(1));
  // Seeds in checkpoints and documentation must keep their meaning.
  expect(take(0)).toMatchInlineSnapshot(`
    [
      3809008728,
      1133695204,
      53579671,
      2891528803,
    ]
  `);
});

it("is xoshiro128**: the recurrence of its paper, on 64-bit integers", () => {
  const random = new SeededRandom(42);
  const mask = 0xffffffffn;
  const rotate = (x: bigint, k: bigint) => ((x << k) | (x >> (32n - k))) & mask;
  // The state is taken back from four outputs' seeds: splitmix32 of the seed.
  const state: bigint[] = [];
  let mix = 42n;
  for (let i = 0; i < 4; i++) {
    mix = (mix + 0x9e3779b9n) & mask;
    let z = mix;
    z = ((z ^ (z >> 16n)) * 0x85ebca6bn) & mask;
    z = ((z ^ (z >> 13n)) * 0xc2b2ae35n) & mask;
    state.push(z ^ (z >> 16n));
  }
  for (let i = 0; i < 1000; i++) {
    const expected = (rotate((state[1] * 5n) & mask, 7n) * 9n) & mask;
    const shifted = (state[1] << 9n) & mask;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 11n);
    expect(random.nextUint32()).toBe(Number(expected));
  }
});

it("has the moments of its distributions", () => {
  const random = new SeededRandom(7);
  const count = 40_000;
  const moments = (next: () => number) => {
    const values = Array.from({ length: count }, next);
    const mean = values.reduce((sum, value) => sum + value, 0) / count;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count;
    return { mean, variance, min: Math.min(...values), max: Math.max(...values) };
  };
  const uniform = moments(() => random.uniform(-2, 4));
  expect(uniform.mean).toBeCloseTo(1, 1);
  expect(uniform.variance).toBeCloseTo(3, 1);
  expect(uniform.min).toBeGreaterThanOrEqual(-2);
  expect(uniform.max).toBeLessThan(4);
  const normal = moments(() => random.normal());
  expect(normal.mean).toBeCloseTo(0, 1);
  expect(normal.variance).toBeCloseTo(1, 1);
  expect(normal.max).toBeGreaterThan(3);
  const seen = new Set(Array.from({ length: 200 }, () => random.integer(5)));
  expect([...seen].sort()).toEqual([0, 1, 2, 3, 4]);
});

it("takes integers alone", () => {
  for (const seed of [0.5, Number.NaN, "1", null, undefined]) {
    expectThrow(() => new SeededRandom(seed as never), "INVALID_ARGUMENT", `seed is ${String(seed)}`);
  }
});
