import {
  type DeviceBuffer,
  type FloatDType,
  floatDTypes,
  type OpName,
  type TypedArray,
} from "@flash-moe/core";
import { BufferScope } from "../buffer-scope.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkSameBits } from "../failure.js";
import { unitRoundoff } from "../tolerance.js";
import { type LayerConfig, type LayerHost, makeLayer, oracleLayer } from "./layer-oracle.js";

/** What the architecture demands of a layer in f32 storage, relative to the largest element. */
const layerTolerance = 1e-5;

const opsOfLayer: readonly OpName[] = [
  "linear",
  "batchNormForward",
  "batchNormBackward",
  "routerSelectForward",
  "routerSelectBackward",
  "expertsForward",
  "expertsBackward",
  "mlpForward",
  "mlpBackward",
];

const small: LayerConfig = {
  tokens: 37,
  hiddenSize: 33,
  intermediateSize: 21,
  keysX: 12,
  keysY: 9,
  topK: 7,
  training: true,
  normalizeWeights: true,
  activation: "silu",
};

const configs: readonly (readonly [name: string, config: LayerConfig])[] = [
  ["training", small],
  ["evaluation", { ...small, training: false, normalizeWeights: false, activation: "gelu" }],
  ["many-tokens", { ...small, tokens: 530, hiddenSize: 17, keysX: 3, keysY: 5, topK: 4 }],
  ["one-token", { ...small, tokens: 1, training: false }],
];

/** Router, selection, shared MLP and experts as one layer, forward and backward, against the oracle. */
export const layerCases: readonly ConformanceCase[] = configs.flatMap(([name, config]) =>
  floatDTypes.flatMap((dtype): ConformanceCase[] => [
    {
      id: `layer/${dtype}/${name}`,
      needs: needs({ ops: opsOfLayer, dtypes: [dtype] }),
      run: (context) => compareLayer(context, config, dtype),
    },
    {
      id: `layer/${dtype}/${name}/repeated`,
      needs: needs({ ops: opsOfLayer, dtypes: [dtype], deterministic: true }),
      run: (context) => repeatLayer(context, config, dtype),
    },
  ]),
);

type LayerBuffers = Readonly<Record<string, DeviceBuffer>>;

async function compareLayer(context: CaseContext, config: LayerConfig, dtype: FloatDType): Promise<void> {
  const host = makeLayer(context.inputs, config, dtype);
  const buffers = runLayer(context, config, host);
  const ids = (await context.raw(buffers.ids)) as Int32Array;
  // The device's ids: one other expert at the boundary would change a token by order one.
  const expected = oracleLayer(config, host, ids);
  // An MLP that keeps [T, I] in the storage dtype rounds it up to five times on the way.
  const { mlpIntermediate } = context.backend.capabilities;
  const mlp = mlpIntermediate === "storage" && dtype !== "f32" ? 5 * unitRoundoff[dtype] : 0;
  const output = dtype === "f32" ? 0 : unitRoundoff[dtype];
  for (const [name, values] of Object.entries(expected)) {
    const tolerance = layerTolerance + (name === "output" ? output : 0);
    const throughMlp = name === "output" || name.startsWith("gradMlp") || name === "gradHiddenStates";
    context.compareNorm(
      name,
      await context.values(buffers[name]),
      values,
      tolerance + (throughMlp ? mlp : 0),
    );
  }
}

async function repeatLayer(context: CaseContext, config: LayerConfig, dtype: FloatDType): Promise<void> {
  const host = makeLayer(context.inputs, config, dtype);
  let first: Map<string, TypedArray> | undefined;
  for (let run = 1; run <= 2; run++) {
    const scope = new BufferScope(context.backend);
    try {
      const results = new Map<string, TypedArray>();
      for (const [name, buffer] of Object.entries(runLayer(scope, config, host))) {
        results.set(name, await scope.raw(buffer));
        const before = first?.get(name);
        if (before !== undefined) checkSameBits(`${name} of run ${run}`, results.get(name)!, before);
      }
      first ??= results;
    } finally {
      scope.dispose();
    }
  }
}

/** Enqueues the whole layer, forward and backward, without waiting in between. */
function runLayer(scope: BufferScope, config: LayerConfig, host: LayerHost): LayerBuffers {
  const { tokens, hiddenSize, intermediateSize, keysX, keysY, topK, training, activation } = config;
  const { ops } = scope.backend;
  const { dtype } = host.hiddenStates;
  const keys = keysX + keysY;
  const numExperts = keysX * keysY;
  const states = tokens * hiddenSize;
  const f32 = (length: number): DeviceBuffer => scope.output("f32", length);

  const hiddenStates = scope.floats(host.hiddenStates);
  const routerGate = scope.floats(host.routerGate);
  const mlp = {
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    hiddenStates,
    gate: scope.floats(host.gate),
    up: scope.floats(host.up),
    down: scope.floats(host.down),
  };
  const runningMean = scope.floats(host.runningMean);
  const runningVariance = scope.floats(host.runningVariance);
  const statistics = training
    ? { mean: f32(hiddenSize), variance: f32(hiddenSize) }
    : { mean: runningMean, variance: runningVariance };
  const batchNorm = { tokens, features: hiddenSize, epsilon: 1e-5, input: hiddenStates, ...statistics };
  const normalized = f32(states);
  const logits = f32(tokens * keys);
  const ids = scope.output("i32", tokens * topK);
  const weights = f32(tokens * topK);
  const router = { tokens, keysX, keysY, topK, normalizeWeights: config.normalizeWeights, logits, ids };
  const shared = f32(states);
  const output = scope.output(dtype, states);
  const experts = {
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates,
    down: scope.floats(host.expertsDown),
    up: scope.floats(host.expertsUp),
    ids,
    weights,
  };

  if (training) {
    ops.batchNormForward({
      ...batchNorm,
      training,
      momentum: 0.1,
      output: normalized,
      runningMean,
      runningVariance,
    });
  } else {
    ops.batchNormForward({ ...batchNorm, training, output: normalized });
  }
  const projection = { inner: hiddenSize, a: normalized, b: routerGate };
  ops.linear({ ...projection, rows: tokens, columns: keys, transposeB: true, output: logits });
  ops.routerSelectForward({ ...router, weights });
  ops.mlpForward({ ...mlp, output: shared });
  ops.expertsForward({ ...experts, addend: shared, output });

  const gradOutput = scope.floats(host.gradOutput);
  const gradHiddenStates = f32(states);
  const gradWeights = f32(tokens * topK);
  const gradExpertsDown = f32(numExperts * hiddenSize);
  const gradExpertsUp = f32(numExperts * hiddenSize);
  const gradLogits = f32(tokens * keys);
  const gradRouterGate = f32(keys * hiddenSize);
  const gradNormalized = f32(states);
  const gradMlpGate = f32(intermediateSize * hiddenSize);
  const gradMlpUp = f32(intermediateSize * hiddenSize);
  const gradMlpDown = f32(intermediateSize * hiddenSize);
  ops.expertsBackward({
    ...experts,
    gradOutput,
    gradHiddenStates,
    gradWeights,
    gradTables: { layout: "dense", down: gradExpertsDown, up: gradExpertsUp },
  });
  ops.mlpBackward({
    ...mlp,
    gradOutput,
    gradHiddenStates,
    gradGate: gradMlpGate,
    gradUp: gradMlpUp,
    gradDown: gradMlpDown,
    accumulate: ["gradHiddenStates"],
  });
  ops.routerSelectBackward({ ...router, gradWeights, gradLogits });
  ops.linear({
    rows: keys,
    inner: tokens,
    columns: hiddenSize,
    transposeA: true,
    a: gradLogits,
    b: normalized,
    output: gradRouterGate,
  });
  ops.linear({
    rows: tokens,
    inner: keys,
    columns: hiddenSize,
    a: gradLogits,
    b: routerGate,
    output: gradNormalized,
  });
  ops.batchNormBackward({
    ...batchNorm,
    training,
    gradOutput: gradNormalized,
    gradInput: gradHiddenStates,
    accumulate: ["gradInput"],
  });
  return {
    ids,
    logits,
    weights,
    output,
    gradHiddenStates,
    gradWeights,
    gradLogits,
    gradRouterGate,
    gradExpertsDown,
    gradExpertsUp,
    gradMlpGate,
    gradMlpUp,
    gradMlpDown,
    runningMean,
    runningVariance,
  };
}
