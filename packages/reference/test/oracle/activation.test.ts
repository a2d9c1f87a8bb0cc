import type { Activation } from "@flash-moe/core";
import { describe, expect, test } from "vitest";
import { activationFunction, erf, erfc } from "../../src/oracle/index.js";

// x, erf(x), erfc(x), rounded from 40 digits of mpmath 1.3.0.
const erfValues: [number, number, number][] = [
  [1e-300, 1.1283791670955126e-300, 1],
  [1e-8, 1.1283791670955126e-8, 0.9999999887162083],
  [0.1, 0.1124629160182849, 0.887537083981715],
  [0.5, 0.5204998778130465, 0.4795001221869535],
  [0.9999999, 0.842700751438961, 0.157299248561039],
  [1, 0.8427007929497149, 0.15729920705028513],
  [1.0000001, 0.8427008344604605, 0.15729916553953951],
  [1.5, 0.9661051464753108, 0.033894853524689274],
  [2, 0.9953222650189527, 0.004677734981047266],
  [2.5, 0.999593047982555, 0.0004069520174449589],
  [3, 0.9999779095030014, 2.209049699858544e-5],
  [4, 0.9999999845827421, 1.541725790028002e-8],
  [5, 0.9999999999984626, 1.537459794428035e-12],
  [6, 1, 2.1519736712498913e-17],
  [6.25, 1, 9.672204131876253e-19],
  [6.3, 1, 5.124221687395715e-19],
  [8, 1, 1.1224297172982926e-29],
  [10, 1, 2.088487583762545e-45],
  [20, 1, 5.395865611607901e-176],
  [26.5, 1, 2.2109076642637343e-307],
];

describe("erf", () => {
  test.each(erfValues)("of %f", (x, value, complement) => {
    expect(Math.abs(erf(x) - value)).toBeLessThanOrEqual(1e-15 * value);
    expect(erf(-x)).toBe(-erf(x));
    // exp(-x^2) alone is off by the rounding of x^2.
    expect(Math.abs(erfc(x) - complement)).toBeLessThanOrEqual(1e-15 * (1 + x * x) * complement);
    expect(Math.abs(erfc(-x) - (1 + value))).toBeLessThanOrEqual(1e-15);
  });

  test("at its ends", () => {
    expect(erf(0)).toBe(0);
    expect(erf(Infinity)).toBe(1);
    expect(erf(-Infinity)).toBe(-1);
    expect(erfc(Infinity)).toBe(0);
    expect(erfc(-Infinity)).toBe(2);
    expect(erf(NaN)).toBeNaN();
  });
});

// x, value, derivative, computed with mpmath 1.3.0.
const values: Record<Activation, [x: number, value: number, derivative: number][]> = {
  silu: [
    [-30, -2.8072868906517896e-12, -2.713710660963134e-12],
    [-3, -0.14227761953270035, -0.08810410601516962],
    [-0.5, -0.18877033439907273, 0.2600388126973482],
    [0, 0, 0.5],
    [0.5, 0.3112296656009273, 0.7399611873026518],
    [3, 2.8577223804672998, 1.0881041060151695],
    [30, 29.999999999997193, 1.0000000000027136],
  ],
  gelu: [
    [-30, -1.472014178144456e-196, -4.416031690708495e-195],
    [-3, -0.0040496940948902835, -0.011945647204183927],
    [-0.5, -0.15426876936299344, 0.13250487534383715],
    [0, 0, 0.5],
    [0.5, 0.34573123063700656, 0.8674951246561629],
    [3, 2.99595030590511, 1.011945647204184],
    [30, 30, 1],
  ],
  gelu_tanh: [
    [-30, 0, 0],
    [-3, -0.0036373920817730186, -0.011584166630969726],
    [-0.5, -0.15428599017485609, 0.1326300964653577],
    [0, 0, 0.5],
    [0.5, 0.34571400982514394, 0.8673699035346423],
    [3, 2.996362607918227, 1.0115841666309697],
    [30, 30, 1],
  ],
  relu: [
    [-3, 0, 0],
    [0, 0, 0],
    [1e-30, 1e-30, 1],
    [3, 3, 1],
  ],
};

describe.each(["silu", "gelu", "gelu_tanh", "relu"] as const)("%s", (name) => {
  const act = activationFunction(name);

  test.each(values[name])("at %f", (x, value, derivative) => {
    expect(Math.abs(act.value(x) - value)).toBeLessThanOrEqual(2e-15 * Math.abs(value) * (1 + x * x));
    expect(Math.abs(act.derivative(x) - derivative)).toBeLessThanOrEqual(
      4e-15 * Math.abs(derivative) * (1 + x * x),
    );
  });

  test("is the identity far up and zero far down, with its derivative", () => {
    for (const x of [1e3, 1e30, 3e38, 1e100, 1e300]) {
      expect(act.value(x)).toBe(x);
      expect(act.derivative(x)).toBe(1);
      expect(Math.abs(act.value(-x))).toBe(0);
      expect(Math.abs(act.derivative(-x))).toBe(0);
    }
  });

  test("carries NaN", () => {
    expect(act.value(NaN)).toBeNaN();
  });
});
