import type { DType, FloatDType, OpCalls, OpName } from "@flash-moe/core";
import type { CommandQueue } from "../../src/command-queue.js";
import { type DeviceMemory, splitRanges } from "../../src/device-memory.js";
import { PlanningContext } from "../../src/live-context.js";
import { opFunctions } from "../../src/ops/index.js";
import { type Variant, variantKey } from "../../src/pipelines.js";

const gpuBuffer = undefined as unknown as GPUBuffer;
const queue = undefined as unknown as CommandQueue;

/** A buffer that is nowhere, cut at `limit` bytes. */
export function memory(dtype: DType, length: number, limit: number = 2 ** 30): DeviceMemory {
  const parts = splitRanges(dtype, length, limit).map((range) => ({
    buffer: gpuBuffer,
    byteOffset: 0,
    ...range,
  }));
  return { dtype, length, label: "", parts, queue };
}

type Calls = { [Name in OpName]: readonly OpCalls<DeviceMemory>[Name][] };

/** Calls that take every branch of the ops' host side, for one storage dtype and one row length. */
function calls(dtype: FloatDType, width: number, tokens: number, limit: number): Calls {
  const make = (type: DType, length: number): DeviceMemory => memory(type, length, limit);
  const f = (length: number): DeviceMemory => make("f32", length);
  const s = (length: number): DeviceMemory => make(dtype, length);
  const statistics = { mean: f(width), variance: f(width), epsilon: 1e-5 };
  const states = tokens * width;
  const experts = 300;
  const linear = { rows: tokens, inner: width, columns: width };
  const square = width * width;
  const topK = 5;
  const pairs = tokens * topK;
  const expertsShape = {
    tokens,
    hiddenSize: width,
    numExperts: experts,
    topK,
    activation: "gelu" as const,
    hiddenStates: s(states),
    down: s(experts * width),
    up: s(experts * width),
    ids: make("i32", pairs),
    weights: f(pairs),
  };
  const mlpShape = {
    tokens,
    hiddenSize: width,
    intermediateSize: width,
    activation: "silu" as const,
    hiddenStates: s(states),
    gate: s(square),
    up: s(square),
    down: s(square),
  };
  const norm = { tokens, features: width, epsilon: 1e-5, input: s(states), output: f(states) };
  const route = { tokens, keysX: 20, keysY: 300, normalizeWeights: true };
  const adamw = {
    rows: experts,
    columns: width,
    parameter: s(experts * width),
    master: f(experts * width),
    firstMoment: f(experts * width),
    secondMoment: f(experts * width),
    step: 1,
    learningRate: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weightDecay: 0,
    gradientScale: 1,
  };
  const rows = Math.min(pairs, experts);
  return {
    linear: [
      { ...linear, a: s(states), b: s(square), output: s(states) },
      { ...linear, a: s(states), b: s(square), output: f(states), transposeB: true, inputNorm: statistics },
      { ...linear, a: f(states), b: f(square), output: s(states), transposeB: true, outputNorm: statistics },
      { ...linear, a: f(states), b: s(square), output: f(states) },
      { ...linear, a: s(states), b: f(square), output: f(states), accumulate: ["output"] },
    ],
    batchNormForward: [
      {
        ...norm,
        training: true,
        momentum: 0.1,
        runningMean: f(width),
        runningVariance: f(width),
        ...statistics,
      },
      { ...norm, training: false, ...statistics },
    ],
    batchNormBackward: [true, false].map((training) => ({
      tokens,
      features: width,
      training,
      input: s(states),
      gradOutput: f(states),
      gradInput: f(states),
      ...statistics,
    })),
    routerSelectForward: [5, 500].map((k) => ({
      ...route,
      topK: k,
      logits: f(tokens * 320),
      ids: make("i32", tokens * k),
      weights: f(tokens * k),
    })),
    routerSelectBackward: [
      {
        ...route,
        topK,
        logits: f(tokens * 320),
        ids: make("i32", pairs),
        gradWeights: f(pairs),
        gradLogits: f(tokens * 320),
      },
    ],
    expertsForward: [
      { ...expertsShape, output: s(states) },
      { ...expertsShape, output: f(states), addend: s(states) },
      { ...expertsShape, output: s(states), addend: f(states) },
      { ...expertsShape, output: s(states), addend: s(states) },
    ],
    expertsBackward: [
      {
        ...expertsShape,
        gradOutput: s(states),
        gradHiddenStates: f(states),
        gradWeights: f(pairs),
        gradTables: { layout: "dense", down: f(experts * width), up: f(experts * width) },
      },
      {
        ...expertsShape,
        gradOutput: s(states),
        gradTables: {
          layout: "compact",
          ids: make("i32", rows),
          count: make("i32", 1),
          down: f(rows * width),
          up: f(rows * width),
        },
      },
    ],
    mlpForward: [
      { ...mlpShape, output: s(states) },
      { ...mlpShape, output: f(states), addend: s(states) },
      { ...mlpShape, output: s(states), addend: f(states) },
    ],
    mlpBackward: [
      {
        ...mlpShape,
        gradOutput: s(states),
        gradHiddenStates: f(states),
        gradGate: f(square),
        gradUp: f(square),
        gradDown: f(square),
      },
    ],
    adamw: [
      { ...adamw, gradient: f(experts * width) },
      {
        ...adamw,
        gradient: f(9 * width),
        compact: { capacity: 9, ids: make("i32", 9), count: make("i32", 1) },
      },
    ],
  };
}

/** Every kernel that the ops launch, for every dtype, with rows that vectors fit and rows that they do not. */
export function allVariants(): Variant[] {
  const variants = new Map<string, Variant>();
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    for (const width of [36, 35]) {
      for (const tokens of [1, 300]) {
        for (const [op, opCalls] of Object.entries(calls(dtype, width, tokens, 2 ** 30))) {
          const context = new PlanningContext(op as OpName, { bindingBytes: 2 ** 30, partBytes: 2 ** 30 });
          for (const call of opCalls) opFunctions[op as OpName](call as never, context);
          for (const variant of context.variants) variants.set(variantKey(variant), variant);
        }
      }
    }
  }
  variants.set("write_half", { kernel: "write_half" });
  return [...variants.values()];
}
