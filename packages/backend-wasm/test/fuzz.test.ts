import { activations, type FloatDType, floatDTypes } from "@flash-moe/core";
import { afterAll, afterEach, beforeAll, describe, it } from "vitest";
import { Pair } from "./helpers/pair.js";
import { variants } from "./helpers/variants.js";

/** Around every width that the kernels step by: vectors, panels, blocks. */
const sizes = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129, 255, 256, 257];
const longSizes = [...sizes, 300, 511, 513, 520, 1030];
const rounds = 40;

describe.each([
  ...variants.map((variant) => ({ variant, threads: 1 })),
  { variant: variants[0], threads: 3 },
])("$variant, threads: $threads, random sizes against the oracle", (options) => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.open(options, 42);
  });
  afterEach(() => pair.clear());
  afterAll(() => pair.close());

  async function repeat(round: () => Promise<void>): Promise<void> {
    for (let n = 0; n < rounds; n++) {
      await round();
      pair.clear();
    }
  }

  async function linear(rows: number, inner: number, columns: number): Promise<void> {
    const half = pair.pick(floatDTypes);
    const transposeA = pair.flag();
    const accumulates = pair.flag();
    const norm = (features: number) => ({
      mean: pair.floats(features),
      variance: pair.positive(features),
      epsilon: 1e-5,
    });
    const output = pair.floats(rows * columns, accumulates ? "f32" : pair.pick(floatDTypes));
    const dtypeA = pair.pick(["f32", half] as const);
    const dtypeB = pair.pick(["f32", half] as const);
    const transposeB = pair.flag();
    pair.run("linear", {
      rows,
      inner,
      columns,
      a: pair.floats(rows * inner, dtypeA),
      b: pair.floats(inner * columns, dtypeB),
      output,
      transposeA,
      transposeB,
      ...(accumulates && { accumulate: ["output"] }),
      ...(!transposeA && pair.flag() && { inputNorm: norm(inner) }),
      ...(!accumulates && pair.flag() && { outputNorm: norm(columns) }),
    });
    await pair.compare(
      `[${rows}, ${inner}, ${columns}] ${dtypeA}${transposeA ? "^T" : ""} ${dtypeB}${transposeB ? "^T" : ""}`,
      output,
    );
  }

  it("linear", () => repeat(() => linear(pair.pick(sizes), pair.pick(longSizes), pair.pick(longSizes))));

  it.each([0, 1, 2, 3, 4, 5])("linear, sums of %i", (inner) =>
    repeat(() => linear(pair.pick([...longSizes, 2 * 528 + 2]), inner, pair.pick(sizes))),
  );

  it.each([false, true])("more rows than are packed at a time, transposed: %s", async (transposeA) => {
    const [rows, inner, columns] = [2 * 528 + 2, 9, 11];
    const output = pair.floats(rows * columns, "f16");
    pair.run("linear", {
      rows,
      inner,
      columns,
      a: pair.floats(rows * inner, "bf16"),
      b: pair.floats(inner * columns),
      output,
      transposeA,
      ...(!transposeA && {
        inputNorm: { mean: pair.floats(inner), variance: pair.positive(inner), epsilon: 1e-5 },
      }),
    });
    await pair.compare("output", output);
  });

  it("the router", () =>
    repeat(async () => {
      const [tokens, keysX, keysY] = [pair.pick([1, 3, 8]), pair.pick(longSizes), pair.pick(longSizes)];
      const topK = Math.min(keysX * keysY, pair.pick(longSizes));
      const shape = { tokens, keysX, keysY, topK, normalizeWeights: pair.flag() };
      const logits = pair.floats(tokens * (keysX + keysY), "f32", 3);
      const ids = pair.integers(tokens * topK, 1);
      const weights = pair.floats(tokens * topK);
      pair.run("routerSelectForward", { ...shape, logits, ids, weights });
      const what = `X ${keysX}, Y ${keysY}, k ${topK}`;
      await pair.compare(`ids of ${what}`, ids);
      await pair.compare(`weights of ${what}`, weights);
      const gradLogits = pair.floats(tokens * (keysX + keysY));
      pair.run("routerSelectBackward", {
        ...shape,
        logits,
        ids,
        gradWeights: pair.floats(tokens * topK),
        gradLogits,
        ...(pair.flag() && { accumulate: ["gradLogits"] }),
      });
      await pair.compare(`gradLogits of ${what}`, gradLogits);
    }));

  it("the router's choice among ties, outliers and what is no number", () =>
    repeat(async () => {
      const [tokens, keysX, keysY] = [4, pair.pick(longSizes), pair.pick(longSizes)];
      const topK = Math.min(keysX * keysY, pair.pick(sizes));
      const share = pair.pick([0, 0.05, 0.5]);
      const odd = [Infinity, -Infinity, Number.NaN, 0, -0, 3.4e38, -3.4e38, 1e30];
      const steps = pair.pick([1, 8, 1e6]);
      const logit = () =>
        pair.random.uniform() < share ? pair.pick(odd) : Math.round(pair.random.normal() * steps) / steps;
      const logits = pair.values(Float32Array.from({ length: tokens * (keysX + keysY) }, logit));
      const ids = pair.integers(tokens * topK, 1);
      const weights = pair.floats(tokens * topK);
      pair.run("routerSelectForward", {
        tokens,
        keysX,
        keysY,
        topK,
        normalizeWeights: false,
        logits,
        ids,
        weights,
      });
      await pair.compare(`ids of X ${keysX}, Y ${keysY}, k ${topK}`, ids);
    }));

  it("the experts", () =>
    repeat(async () => {
      const [tokens, hiddenSize] = [pair.pick(sizes), pair.pick(sizes)];
      const [numExperts, topK] = [pair.pick([...sizes, 5000]), pair.pick([1, 2, 3, 4, 5, 9, 16, 33])];
      const dtype: FloatDType = pair.pick(floatDTypes);
      const states = tokens * hiddenSize;
      const call = {
        tokens,
        hiddenSize,
        numExperts,
        topK,
        activation: pair.pick(activations),
        hiddenStates: pair.floats(states, dtype),
        down: pair.floats(numExperts * hiddenSize, dtype, 0.3),
        up: pair.floats(numExperts * hiddenSize, dtype),
        ids: pair.integers(tokens * topK, numExperts),
        weights: pair.floats(tokens * topK),
      };
      const what = `T ${tokens}, H ${hiddenSize}, N ${numExperts}, k ${topK}, ${dtype}, ${call.activation}`;
      const output = pair.floats(states, pair.pick(["f32", dtype]));
      pair.run("expertsForward", {
        ...call,
        output,
        ...(pair.flag() && { addend: pair.floats(states, pair.pick(["f32", dtype])) }),
      });
      await pair.compare(`output of ${what}`, output);

      const gradHiddenStates = pair.floats(states);
      const gradWeights = pair.floats(tokens * topK);
      const capacity = Math.min(tokens * topK, numExperts);
      const dense = pair.flag();
      const rows = dense ? numExperts : capacity;
      const tables = { down: pair.floats(rows * hiddenSize), up: pair.floats(rows * hiddenSize) };
      const ids = pair.integers(capacity, 1);
      const count = pair.integers(1, 1);
      pair.run("expertsBackward", {
        ...call,
        gradOutput: pair.floats(states, dtype),
        gradHiddenStates,
        gradWeights,
        gradTables: dense ? { layout: "dense", ...tables } : { layout: "compact", ids, count, ...tables },
        accumulate: [
          ...(pair.flag() ? (["gradHiddenStates"] as const) : []),
          ...(pair.flag() ? (["gradWeights"] as const) : []),
          ...(dense && pair.flag() ? (["gradTables"] as const) : []),
        ],
      });
      await pair.compare(`gradHiddenStates of ${what}`, gradHiddenStates);
      await pair.compare(`gradWeights of ${what}`, gradWeights);
      const used = dense ? numExperts : (await pair.wasm.read(count.wasm))[0];
      await pair.compare(`gradient of down of ${what}`, tables.down, used * hiddenSize);
      await pair.compare(`gradient of up of ${what}`, tables.up, used * hiddenSize);
      if (dense) return;
      await pair.compare(`count of ${what}`, count);
      await pair.compare(`ids of ${what}`, ids, used);
    }));

  it("the MLP", () =>
    repeat(async () => {
      const [tokens, hiddenSize, intermediateSize] = [pair.pick(sizes), pair.pick(sizes), pair.pick(sizes)];
      const dtype: FloatDType = pair.pick(floatDTypes);
      const states = tokens * hiddenSize;
      const weights = intermediateSize * hiddenSize;
      const scale = 1 / Math.sqrt(hiddenSize);
      const call = {
        tokens,
        hiddenSize,
        intermediateSize,
        activation: pair.pick(activations.filter((activation) => activation !== "relu")),
        hiddenStates: pair.floats(states, dtype),
        gate: pair.floats(weights, dtype, scale),
        up: pair.floats(weights, dtype, scale),
        down: pair.floats(weights, dtype),
      };
      const what = `T ${tokens}, H ${hiddenSize}, I ${intermediateSize}, ${dtype}, ${call.activation}`;
      const output = pair.floats(states, pair.pick(["f32", dtype]));
      pair.run("mlpForward", {
        ...call,
        output,
        ...(pair.flag() && { addend: pair.floats(states, pair.pick(["f32", dtype])) }),
      });
      await pair.compare(`output of ${what}`, output);
      const gradients = {
        gradHiddenStates: pair.floats(states),
        gradGate: pair.floats(weights),
        gradUp: pair.floats(weights),
        gradDown: pair.floats(weights),
      };
      const names = Object.keys(gradients) as (keyof typeof gradients)[];
      pair.run("mlpBackward", {
        ...call,
        gradOutput: pair.floats(states, dtype),
        ...gradients,
        accumulate: names.filter(() => pair.flag()),
      });
      for (const name of names) await pair.compare(`${name} of ${what}`, gradients[name]);
    }));

  it("more tokens than one block of the MLP", async () => {
    const [tokens, hiddenSize, intermediateSize] = [1100, 9, 11];
    const weights = intermediateSize * hiddenSize;
    const gradGate = pair.floats(weights);
    const gradDown = pair.floats(weights);
    const output = pair.floats(tokens * hiddenSize, "bf16");
    const call = {
      tokens,
      hiddenSize,
      intermediateSize,
      activation: "silu" as const,
      hiddenStates: pair.floats(tokens * hiddenSize, "bf16"),
      gate: pair.floats(weights, "bf16"),
      up: pair.floats(weights, "bf16"),
      down: pair.floats(weights, "bf16"),
    };
    pair.run("mlpForward", { ...call, output });
    const gradOutput = pair.floats(tokens * hiddenSize, "bf16");
    pair.run("mlpBackward", { ...call, gradOutput, gradGate, gradDown, accumulate: ["gradDown"] });
    await pair.compare("output", output);
    await pair.compare("gradGate", gradGate);
    await pair.compare("gradDown", gradDown);
  });
});
