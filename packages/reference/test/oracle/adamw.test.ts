import { expect, test } from "vitest";
import { adamwRange, adamwRows } from "../../src/oracle/index.js";

const settings = {
  step: 1,
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 0.01,
  gradientScale: 1,
};

function zeroState(parameter: number[], gradient: number[]) {
  return {
    parameter: new Float64Array(parameter),
    firstMoment: new Float64Array(parameter.length),
    secondMoment: new Float64Array(parameter.length),
    gradient: new Float64Array(gradient),
  };
}

const one = { start: 0, gradientStart: 0, length: 1 };

test("two steps, by hand", () => {
  const state = zeroState([1], [0.5]);
  adamwRange(state, settings, one);
  // m = 0.05, v = 0.00025; corrected 0.5 and 0.25: p = 1 - 0.001 - 0.1 * 0.5 / (0.5 + 1e-8).
  expect(state.firstMoment[0]).toBeCloseTo(0.05, 15);
  expect(state.secondMoment[0]).toBeCloseTo(0.00025, 15);
  expect(state.parameter[0]).toBeCloseTo(0.89900000199999996, 15);
  state.gradient[0] = -0.25;
  adamwRange(state, { ...settings, step: 2 }, one);
  expect(state.firstMoment[0]).toBeCloseTo(0.02, 15);
  expect(state.secondMoment[0]).toBeCloseTo(0.00031225, 15);
  // From the formulas in 40-digit decimals.
  expect(state.parameter[0]).toBeCloseTo(0.87146729870584616, 14);
});

test("the gradient is scaled before everything else", () => {
  const scaled = zeroState([1, -2], [0.5, 3]);
  const plain = zeroState([1, -2], [0.125, 0.75]);
  const both = { start: 0, gradientStart: 0, length: 2 };
  adamwRange(scaled, { ...settings, gradientScale: 0.25 }, both);
  adamwRange(plain, settings, both);
  expect(scaled.parameter).toEqual(plain.parameter);
  expect(scaled.firstMoment).toEqual(plain.firstMoment);
  expect(scaled.secondMoment).toEqual(plain.secondMoment);
});

test("float32 state is rounded once, when it is stored", () => {
  const wide = zeroState([0.3], [0.7]);
  const narrow = {
    parameter: Float32Array.of(0.3),
    firstMoment: new Float32Array(1),
    secondMoment: new Float32Array(1),
    gradient: Float32Array.of(0.7),
  };
  wide.parameter[0] = narrow.parameter[0];
  wide.gradient[0] = narrow.gradient[0];
  adamwRange(wide, settings, one);
  adamwRange(narrow, settings, one);
  expect(narrow.parameter[0]).toBe(Math.fround(wide.parameter[0]));
  expect(narrow.firstMoment[0]).toBe(Math.fround(wide.firstMoment[0]));
  expect(narrow.secondMoment[0]).toBe(Math.fround(wide.secondMoment[0]));
});

test("a range leaves the elements around it alone", () => {
  const state = zeroState([1, 2, 3, 4], [9, 0.5]);
  adamwRange(state, settings, { start: 2, gradientStart: 1, length: 1 });
  expect([state.parameter[0], state.parameter[1], state.parameter[3]]).toEqual([1, 2, 4]);
  expect([...state.firstMoment]).toEqual([0, 0, expect.closeTo(0.05, 15), 0]);
});

test("compact rows are stepped as the whole would be, and no others, also not by decay", () => {
  const columns = 2;
  const dense = zeroState([1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0.5, -1, 0, 0, 2, 3]);
  const compact = zeroState([1, 2, 3, 4, 5, 6, 7, 8], [0.5, -1, 2, 3, 1e9, 1e9]);
  // The third id is past the count.
  const ids = Int32Array.of(1, 3, 0);
  for (const step of [5, 6]) {
    adamwRange(dense, { ...settings, step }, { start: 0, gradientStart: 0, length: 8 });
    adamwRows(compact, { ...settings, step }, { rows: 4, columns, ids, count: 2 });
  }
  for (const used of [2, 3, 6, 7]) {
    expect(compact.parameter[used]).toBe(dense.parameter[used]);
    expect(compact.firstMoment[used]).toBe(dense.firstMoment[used]);
    expect(compact.secondMoment[used]).toBe(dense.secondMoment[used]);
  }
  expect([0, 1, 4, 5].map((n) => compact.parameter[n])).toEqual([1, 2, 5, 6]);
  expect([0, 1, 4, 5].map((n) => compact.firstMoment[n])).toEqual([0, 0, 0, 0]);
});

test("rows out of range are passed over", () => {
  const state = zeroState([1, 2], [1, 1]);
  // The second id lies past the rows of this parameter, though not past the array.
  adamwRows(state, settings, { rows: 1, columns: 1, ids: Int32Array.of(-1, 1), count: 2 });
  expect([...state.parameter]).toEqual([1, 2]);
});
