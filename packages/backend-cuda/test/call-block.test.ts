import { createRequire } from "node:module";
import { type DType, type OpCalls, type OpName, opNames } from "@flash-moe/core";
import { describe, expect } from "vitest";
import type { Addon } from "../src/addon.js";
import type { CudaBuffer } from "../src/cuda-buffer.js";
import { callBlockLength, type EncodeCall, encodeCalls } from "../src/encode-calls.js";
import { itOnShim as it, shimBinary } from "./helpers/shim.js";

const loadAddon = (): Addon => createRequire(import.meta.url)(shimBinary()) as Addon;

/** Another number, dtype and flag each time, so that two fields that change places are seen. */
class Distinct {
  #next = 1;

  number(): number {
    return this.#next++;
  }

  buffer(): CudaBuffer {
    const dtypes: DType[] = ["f32", "f16", "bf16", "i32"];
    const address = 2 ** 40 + 256 * this.#next++;
    return { dtype: dtypes[this.#next % 4], length: 1, address };
  }
}

const codes = {
  dtype: { f32: 0, f16: 1, bf16: 2, i32: 3 },
  activation: { silu: 0, gelu: 1, gelu_tanh: 2, relu: 3 },
  layout: { dense: 1, compact: 2 },
};

type Call<Name extends OpName> = OpCalls<CudaBuffer>[Name];

/** One call of each op with everything in it, and one with all that is optional left out. */
const calls: { readonly [Name in OpName]: readonly [full: Call<Name>, bare: Call<Name>] } = (() => {
  const d = new Distinct();
  const norm = () => ({ mean: d.buffer(), variance: d.buffer(), epsilon: d.number() + 0.25 });
  const linear = () => ({
    rows: d.number(),
    inner: d.number(),
    columns: d.number(),
    a: d.buffer(),
    b: d.buffer(),
    output: d.buffer(),
  });
  const batchNorm = () => ({ tokens: d.number(), features: d.number(), epsilon: d.number() + 0.25 });
  const statistics = () => ({ input: d.buffer(), mean: d.buffer(), variance: d.buffer() });
  const router = () => ({
    tokens: d.number(),
    keysX: d.number(),
    keysY: d.number(),
    topK: d.number(),
    logits: d.buffer(),
    ids: d.buffer(),
  });
  const experts = () => ({
    tokens: d.number(),
    hiddenSize: d.number(),
    numExperts: d.number(),
    topK: d.number(),
    hiddenStates: d.buffer(),
    down: d.buffer(),
    up: d.buffer(),
    ids: d.buffer(),
    weights: d.buffer(),
  });
  const mlp = () => ({
    tokens: d.number(),
    hiddenSize: d.number(),
    intermediateSize: d.number(),
    hiddenStates: d.buffer(),
    gate: d.buffer(),
    up: d.buffer(),
    down: d.buffer(),
  });
  const adamw = () => ({
    rows: d.number(),
    columns: d.number(),
    parameter: d.buffer(),
    firstMoment: d.buffer(),
    secondMoment: d.buffer(),
    gradient: d.buffer(),
    step: d.number(),
    learningRate: d.number() + 0.5,
    beta1: d.number() + 0.5,
    beta2: d.number() + 0.5,
    epsilon: d.number() + 0.5,
    weightDecay: d.number() + 0.5,
    gradientScale: d.number() + 0.5,
  });
  const compact = () => ({ ids: d.buffer(), count: d.buffer() });
  return {
    linear: [
      { ...linear(), transposeA: true, transposeB: false, inputNorm: norm(), outputNorm: norm() },
      { ...linear(), transposeB: true, accumulate: ["output"] },
    ],
    batchNormForward: [
      {
        ...batchNorm(),
        ...statistics(),
        training: true,
        output: d.buffer(),
        momentum: d.number() + 0.5,
        runningMean: d.buffer(),
        runningVariance: d.buffer(),
      },
      { ...batchNorm(), ...statistics(), training: false, output: d.buffer() },
    ],
    batchNormBackward: [
      {
        ...batchNorm(),
        ...statistics(),
        training: true,
        gradOutput: d.buffer(),
        gradInput: d.buffer(),
        accumulate: ["gradInput"],
      },
      { ...batchNorm(), ...statistics(), training: false, gradOutput: d.buffer(), gradInput: d.buffer() },
    ],
    routerSelectForward: [
      { ...router(), normalizeWeights: true, weights: d.buffer() },
      { ...router(), normalizeWeights: false, weights: d.buffer() },
    ],
    routerSelectBackward: [
      {
        ...router(),
        normalizeWeights: true,
        gradWeights: d.buffer(),
        gradLogits: d.buffer(),
        accumulate: ["gradLogits"],
      },
      { ...router(), normalizeWeights: false, gradWeights: d.buffer(), gradLogits: d.buffer() },
    ],
    expertsForward: [
      { ...experts(), activation: "gelu_tanh", addend: d.buffer(), output: d.buffer() },
      { ...experts(), activation: "gelu", output: d.buffer() },
    ],
    expertsBackward: [
      {
        ...experts(),
        activation: "relu",
        gradOutput: d.buffer(),
        gradHiddenStates: d.buffer(),
        gradWeights: d.buffer(),
        gradTables: { layout: "compact", ...compact(), down: d.buffer(), up: d.buffer() },
        accumulate: ["gradWeights"],
      },
      { ...experts(), activation: "silu", gradOutput: d.buffer() },
    ],
    mlpForward: [
      { ...mlp(), activation: "gelu", addend: d.buffer(), output: d.buffer() },
      { ...mlp(), activation: "silu", output: d.buffer() },
    ],
    mlpBackward: [
      {
        ...mlp(),
        activation: "gelu_tanh",
        gradOutput: d.buffer(),
        gradHiddenStates: d.buffer(),
        gradGate: d.buffer(),
        gradUp: d.buffer(),
        gradDown: d.buffer(),
        accumulate: ["gradGate", "gradDown"],
      },
      { ...mlp(), activation: "silu", gradOutput: d.buffer(), accumulate: ["gradHiddenStates", "gradUp"] },
    ],
    adamw: [{ ...adamw(), master: d.buffer(), compact: { capacity: d.number(), ...compact() } }, adamw()],
  };
})();

/** Fields under dotted names, as the addon shows them; `accumulate` as a flag for each name in it. */
function flatten(value: object, prefix = ""): Map<string, unknown> {
  const out = new Map<string, unknown>();
  for (const [key, field] of Object.entries(value)) {
    const name = prefix + key;
    if (Array.isArray(field)) for (const output of field) out.set(`${name}.${output}`, true);
    else if (isBuffer(field)) out.set(name, { dtype: codes.dtype[field.dtype], address: field.address });
    else if (key === "activation" || key === "layout") {
      out.set(name, { ...codes.activation, ...codes.layout }[field as keyof typeof codes.activation]);
    } else if (typeof field === "object") {
      // Whether there are compact rows is a field of its own in AdamW's struct.
      if (key === "compact") out.set(name, true);
      for (const [inner, leaf] of flatten(field as object, `${name}.`)) out.set(inner, leaf);
    } else out.set(name, field);
  }
  return out;
}

function isBuffer(value: unknown): value is CudaBuffer {
  return typeof value === "object" && value !== null && "address" in value;
}

describe("a call in the block", () => {
  it("has ops under the numbers that the addon gives them", () => {
    expect(loadAddon().opNames).toEqual(opNames);
  });

  for (const [number, name] of opNames.entries()) {
    it(`${name}: every field arrives under its name, and what is absent as nothing`, () => {
      const addon = loadAddon();
      for (const call of calls[name]) {
        const block = new Float64Array(callBlockLength).fill(Number.NaN);
        (encodeCalls[name] as EncodeCall<OpName>)(block, call as never);
        const read = addon.decodeCall(number, block);
        const expected = flatten(call);
        for (const [field, value] of expected) expect([field, read[field]]).toEqual([field, value]);
        for (const [field, value] of Object.entries(read)) {
          if (expected.has(field)) continue;
          expect(value === null || value === 0 || value === false, `${field} is absent`).toBe(true);
        }
      }
    });
  }
});
