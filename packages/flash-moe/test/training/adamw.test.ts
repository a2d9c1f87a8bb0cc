import type { Backend, Parameter, ParameterGradient } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AdamW, type AdamWOptions } from "../../src/training/adamw.js";

let backend: Backend;
beforeAll(async () => {
  backend = await reference.open();
});
afterAll(() => backend.dispose());

const rows = 4;
const columns = 3;
const initial = Float32Array.from({ length: rows * columns }, (_, i) => Math.cos(i));
const slope = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i + 1));

function parameter(
  name = "weight",
  dtype: "f32" | "bf16" = "f32",
  values: ArrayLike<number> = initial,
): Parameter {
  return { name, tensor: backend.upload(values, [rows, columns], dtype) };
}

function dense(values: ArrayLike<number>): ParameterGradient {
  return { layout: "dense", values: backend.upload(values, [rows, columns]) };
}

/** Gradients of the rows `ids`; the arrays have room for all rows, with noise behind the used ones. */
function compact(ids: readonly number[]): ParameterGradient {
  const values = new Float32Array(rows * columns).fill(99);
  ids.forEach((id, r) => {
    values.set(slope.subarray(id * columns, (id + 1) * columns), r * columns);
  });
  const padded = Int32Array.from({ length: rows }, (_, r) => ids[r] ?? 0);
  return {
    layout: "compact",
    values: backend.upload(values, [rows, columns]),
    ids: backend.upload(padded, [rows], "i32"),
    count: backend.upload(Int32Array.of(ids.length), [1], "i32"),
  };
}

/** AdamW as its paper writes it (arXiv 1711.05101, Algorithm 2), one element over several steps. */
function expectedElement(
  start: number,
  gradients: readonly (number | undefined)[],
  options: AdamWOptions,
  learningRate: number,
): number {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01 } = options;
  let [value, m, v] = [start, 0, 0];
  gradients.forEach((g, i) => {
    if (g === undefined) return;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const corrected = m / (1 - beta1 ** (i + 1));
    const deviation = Math.sqrt(v / (1 - beta2 ** (i + 1))) + epsilon;
    value -= learningRate * (corrected / deviation + weightDecay * value);
  });
  return value;
}

async function valuesOf({ tensor }: Parameter): Promise<Float32Array> {
  return (await tensor.read()) as Float32Array;
}

describe("dense gradients", () => {
  it("follow the paper, step by step, decay included", async () => {
    const weight = parameter();
    const options = { weightDecay: 0.1, beta2: 0.99 };
    const optimizer = await AdamW.create([weight], options);
    for (let step = 0; step < 3; step++) {
      optimizer.step([weight], new Map([["weight", dense(slope)]]), { learningRate: 0.01 });
    }
    expect(optimizer.steps).toBe(3);
    const values = await valuesOf(weight);
    values.forEach((value, i) => {
      const expected = expectedElement(initial[i], [slope[i], slope[i], slope[i]], options, 0.01);
      expect(value).toBeCloseTo(expected, 6);
    });
  });

  it("are multiplied by the gradient scale", async () => {
    // With a large epsilon the step depends on the size of the gradient.
    const options = { epsilon: 1 };
    const results: Float32Array[] = [];
    for (const [factor, gradientScale] of [
      [1, 1],
      [8, 0.125],
      [8, 1],
    ]) {
      const weight = parameter();
      const optimizer = await AdamW.create([weight], options);
      const gradient = dense(slope.map((value) => value * factor));
      optimizer.step([weight], new Map([["weight", gradient]]), { learningRate: 0.01, gradientScale });
      results.push(await valuesOf(weight));
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).not.toEqual(results[0]);
  });

  it("have their own rate and decay per parameter, and parameters without one stay", async () => {
    const [plain, fast, still] = [parameter("plain"), parameter("fast"), parameter("still")];
    const all = [plain, fast, still];
    const forParameter = (name: string) => (name === "fast" ? { learningRateScale: 3, weightDecay: 0 } : {});
    const optimizer = await AdamW.create(all, { weightDecay: 0.2, forParameter });
    const gradients = new Map([
      ["plain", dense(slope)],
      ["fast", dense(slope)],
    ]);
    optimizer.step(all, gradients, { learningRate: 0.01 });
    expect((await valuesOf(plain))[1]).toBeCloseTo(
      expectedElement(initial[1], [slope[1]], { weightDecay: 0.2 }, 0.01),
      6,
    );
    expect((await valuesOf(fast))[1]).toBeCloseTo(
      expectedElement(initial[1], [slope[1]], { weightDecay: 0 }, 0.03),
      6,
    );
    expect(await valuesOf(still)).toEqual(initial);
  });
});

describe("compact gradients", () => {
  it("change used rows as dense ones do, and leave the others and their moments alone", async () => {
    const weight = parameter();
    const optimizer = await AdamW.create([weight], { weightDecay: 0.1 });
    for (const ids of [[0, 2], [2], [2, 3]]) {
      optimizer.step([weight], new Map([["weight", compact(ids)]]), { learningRate: 0.01 });
    }
    const values = await valuesOf(weight);
    const used = [[true, false, false], [], [true, true, true], [false, false, true]];
    values.forEach((value, i) => {
      const row = Math.floor(i / columns);
      // The bias correction follows the global step, also for a row's first one.
      const gradients = [0, 1, 2].map((step) => (used[row][step] ? slope[i] : undefined));
      expect(value).toBeCloseTo(expectedElement(initial[i], gradients, { weightDecay: 0.1 }, 0.01), 6);
    });
    expect(values.subarray(3, 6)).toEqual(initial.subarray(3, 6));
    const moments = await Promise.all(optimizer.slots().map(({ tensor }) => tensor.read()));
    for (const moment of moments) expect([...moment.subarray(3, 6)]).toEqual([0, 0, 0]);
  });

  it("of all rows give the bits of a dense one", async () => {
    const [a, b] = [parameter(), parameter()];
    const [first, second] = [await AdamW.create([a]), await AdamW.create([b])];
    for (let step = 0; step < 3; step++) {
      first.step([a], new Map([["weight", dense(slope)]]), { learningRate: 0.01 });
      second.step([b], new Map([["weight", compact([0, 1, 2, 3])]]), { learningRate: 0.01 });
    }
    expect(await valuesOf(a)).toEqual(await valuesOf(b));
  });
});

it("adds up updates that are too small for a bf16 parameter in its master copy", async () => {
  const ones = new Float32Array(rows * columns).fill(1);
  const weight = parameter("weight", "bf16", ones);
  const optimizer = await AdamW.create([weight], { weightDecay: 0 });
  const gradients = new Map([["weight", dense(ones)]]);
  // bf16 has steps of 2^-8 below 1: one of 2^-12 vanishes, 40 of them do not.
  optimizer.step([weight], gradients, { learningRate: 2 ** -12 });
  expect(await valuesOf(weight)).toEqual(ones);
  for (let step = 1; step < 40; step++) optimizer.step([weight], gradients, { learningRate: 2 ** -12 });
  expect((await valuesOf(weight))[0]).toBeLessThanOrEqual(1 - 2 ** -8);
});

it("moves with its parameters and goes on with the same bits", async () => {
  const other = await reference.open();
  const stayed = parameter();
  const stays = await AdamW.create([stayed]);
  const moving = parameter();
  const moves = await AdamW.create([moving]);
  const gradients = new Map([["weight", dense(slope)]]);
  stays.step([stayed], gradients, { learningRate: 0.01 });
  moves.step([moving], gradients, { learningRate: 0.01 });
  await moves.moveTo(other);
  const moved = { name: "weight", tensor: other.upload(await valuesOf(moving), [rows, columns]) };
  const values = other.upload(slope, [rows, columns]);
  moves.step([moved], new Map([["weight", { layout: "dense", values } as const]]), { learningRate: 0.01 });
  stays.step([stayed], gradients, { learningRate: 0.01 });
  expect(await valuesOf(moved)).toEqual(await valuesOf(stayed));
  await other.dispose();
});

it("refuses parameters that it was not made for, before it changes any", async () => {
  const weight = parameter();
  const stranger = parameter("stranger");
  const optimizer = await AdamW.create([weight]);
  const gradients = new Map([
    ["weight", dense(slope)],
    ["stranger", dense(slope)],
  ]);
  expect(() => optimizer.step([weight, stranger], gradients, { learningRate: 0.01 })).toThrow("stranger");
  const reshaped = { name: "weight", tensor: backend.upload(initial, [columns, rows]) };
  expect(() => optimizer.step([reshaped], gradients, { learningRate: 0.01 })).toThrow("[4,3]");
  expect(await valuesOf(weight)).toEqual(initial);
  expect(optimizer.steps).toBe(0);
  await expect(AdamW.create([weight, weight])).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

it("gives its memory back, also when it does not get all of it", async () => {
  const weight = parameter();
  const live = backend.memory().liveBytes;
  const optimizer = await AdamW.create([weight]);
  expect(backend.memory().liveBytes).toBe(live + 2 * rows * columns * 4);
  optimizer.dispose();
  optimizer.dispose();
  expect(backend.memory().liveBytes).toBe(live);

  const cramped = await reference.open({ memoryLimitBytes: 120 });
  const tight = { name: "weight", tensor: cramped.upload(initial, [rows, columns]) };
  await expect(AdamW.create([tight])).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
  expect(cramped.memory().liveBytes).toBe(48);
  await cramped.dispose();
});

it("steps no parameter when one of the gradients does not fit", async () => {
  const all = [parameter("a"), parameter("b")];
  const optimizer = await AdamW.create(all);
  const gone = dense(slope);
  gone.values.dispose();
  const narrow: ParameterGradient = { layout: "dense", values: backend.upload(slope, [columns, rows]) };
  const wrong: [ParameterGradient, string][] = [
    [gone, "DISPOSED"],
    [narrow, "INVALID_ARGUMENT"],
    [{ layout: "dense", values: slope as never }, "INVALID_ARGUMENT"],
    [{ ...compact([1]), ids: backend.upload(Int32Array.of(1), [1], "i32") } as never, "INVALID_ARGUMENT"],
  ];
  for (const [gradient, code] of wrong) {
    const gradients = new Map([
      ["a", dense(slope)],
      ["b", gradient],
    ]);
    expect(() => optimizer.step(all, gradients, { learningRate: 0.1 })).toThrow(
      expect.objectContaining({ code }),
    );
  }
  expect(optimizer.steps).toBe(0);
  expect(await valuesOf(all[0])).toEqual(initial);
});

it("steps no parameter, on no backend, when the settings of one are refused", async () => {
  await using other = await reference.open();
  const all = [
    parameter("a"),
    { name: "elsewhere", tensor: other.upload(initial, [rows, columns]) },
    parameter("b"),
  ];
  const forParameter = (name: string) => (name === "b" ? { weightDecay: Number.NaN } : {});
  const optimizer = await AdamW.create(all, { forParameter });
  const gradients = new Map([
    ["a", dense(slope)],
    ["b", dense(slope)],
    ["elsewhere", { layout: "dense", values: other.upload(slope, [rows, columns]) } as const],
  ]);
  expect(() => optimizer.step(all, gradients, { learningRate: 0.1 })).toThrow("weightDecay is NaN");
  expect(optimizer.steps).toBe(0);
  for (const each of all) expect(await valuesOf(each)).toEqual(initial);
  gradients.delete("b");
  optimizer.step(all, gradients, { learningRate: 0.1 });
  expect(await valuesOf(all[1])).toEqual(await valuesOf(all[0]));
  expect(await valuesOf(all[0])).not.toEqual(initial);
});
