import { expect, it } from "vitest";
import { report, type TuneResult } from "../cuda/tune-report.mjs";

const way = (name: string, microseconds: number, difference = 0) => ({
  way: name,
  microseconds,
  warm: microseconds,
  samples: 5,
  kernels: {},
  difference,
});

const result: TuneResult = {
  device: "a GPU",
  multiprocessors: 100,
  cacheBytes: 2 ** 25,
  rates: { copy: 2e12, cache: 5e12, matmul: { bf16: 5e14, f32: 4e13 } },
  gathers: [{ tableBytes: 2 ** 22, bytesPerSecond: 4e12 }],
  launches: { plain: { deviceMicroseconds: 2, hostMicroseconds: 3 } },
  suggested: { memory: 2e12, cache: 4e12, tensor: 5e12, plain: 4e11, launch: 2e-6 },
  cases: [
    {
      name: "experts forward 1",
      kind: "experts",
      op: "forward",
      ways: [
        way("", 30),
        way("experts=fused", 30),
        way("experts=sliced", 40),
        way("experts=dense", 10),
        { way: "experts=dense tiles=of_128", error: "not here" },
      ],
      expected: { fused: 20, sliced: 25, dense: 22 },
      predictions: { "": "fused", "memory=2": "dense" },
    },
    {
      name: "router 1",
      kind: "router",
      op: "forward",
      ways: [way("", 5), way("router=bisect", 4, 0.5)],
      expected: {},
      predictions: {},
    },
  ],
  errors: [{ name: "mlp 1", error: "the device is lost" }],
};

it("shows each case's best ways with what was expected, and names what is wrong or failed", () => {
  const lines = report(result).split("\n");
  expect(lines).toContain(
    "experts forward 1: 30.0; experts=dense 10.0 (22.0); experts=fused 30.0 (20.0); experts=sliced 40.0 (25.0)",
  );
  expect(lines).toContain("router 1: 5.0; router=bisect 4.0 WRONG by 5.0e-1");
  expect(lines).toContain("mlp 1: the device is lost");
});

it("tells the rates for the model, per multiprocessor, and what choosing by other rates would cost", () => {
  const lines = report(result).split("\n");
  expect(lines).toContain(
    "measured, for DeviceRates: memory = 2.00e+12, cache = 4.00e+10 * multiprocessors, tensor = 5.00e+12, plain = 4.00e+11, launch = 2.00e-6",
  );
  // fused was chosen, which takes three times as long as dense.
  expect(lines).toContain("as it is: 3.000 times the best on average, 3.00 at worst");
  expect(lines).toContain("memory=2: 1.000 times the best on average, 1.00 at worst");
});

it("shows the cases also where the device's rates were not measured", () => {
  const { cases, errors } = result;
  const lines = report({ cases, errors }).split("\n");
  expect(lines).toContain("router 1: 5.0; router=bisect 4.0 WRONG by 5.0e-1");
});
