import type { Activation } from "@flash-moe/core";
import {
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
  expertsBackward,
  expertsForward,
  expertsTableGradients,
  matmul,
  mlpBackward,
  mlpForward,
  routerSelectBackward,
  routerSelectForward,
  routingWeights,
  rowsOf,
} from "../../src/oracle/index.js";

export interface LayerConfig {
  tokens: number;
  hiddenSize: number;
  intermediateSize: number;
  keysX: number;
  keysY: number;
  topK: number;
  activation: Activation;
  norm: "hidden" | "logits" | "none";
  normalizeWeights: boolean;
  training: boolean;
}

/** Everything a gradient is taken of, by name; and the running statistics. */
export interface LayerTensors {
  hiddenStates: Float64Array;
  router: Float64Array;
  down: Float64Array;
  up: Float64Array;
  gateProjection: Float64Array;
  upProjection: Float64Array;
  downProjection: Float64Array;
}

export interface RunningStatistics {
  runningMean: Float64Array;
  runningVariance: Float64Array;
}

const epsilon = 1e-5;

/** One normalisation in either mode, with what its backward needs. */
function normalize(input: Float64Array, features: number, config: LayerConfig, running: RunningStatistics) {
  const shape = { tokens: config.tokens, features, epsilon, input };
  if (config.training) return batchNormTrainingForward({ ...shape, momentum: 0.1, ...running });
  const statistics = { mean: running.runningMean, variance: running.runningVariance };
  return { output: batchNormEvaluationForward({ ...shape, ...statistics }), ...statistics };
}

/** The whole layer; `ids` fixes the choice of experts, as the gradient does. */
export function layerForward(
  config: LayerConfig,
  tensors: LayerTensors,
  running: RunningStatistics,
  ids?: Int32Array,
) {
  const { tokens, hiddenSize, keysX, keysY, norm } = config;
  const keys = keysX + keysY;
  const { hiddenStates } = tensors;
  const hiddenNorm = norm === "hidden" ? normalize(hiddenStates, hiddenSize, config, running) : undefined;
  const routerInput = hiddenNorm?.output ?? hiddenStates;
  const projected = matmul(routerInput, tensors.router, {
    rows: tokens,
    inner: hiddenSize,
    columns: keys,
    transposeB: true,
  });
  const logitsNorm = norm === "logits" ? normalize(projected, keys, config, running) : undefined;
  const logits = logitsNorm?.output ?? projected;
  const chosen = ids ?? routerSelectForward({ ...config, logits: Float32Array.from(logits) }).ids;
  const weights = routingWeights({ ...config, logits, ids: chosen });
  const experts = {
    ...config,
    numExperts: keysX * keysY,
    hiddenStates,
    down: rowsOf(tensors.down, hiddenSize),
    up: rowsOf(tensors.up, hiddenSize),
    ids: chosen,
    weights,
  };
  const mlp = {
    ...config,
    hiddenStates,
    gate: tensors.gateProjection,
    up: tensors.upProjection,
    down: tensors.downProjection,
  };
  const routed = expertsForward(experts);
  const output = mlpForward(mlp).map((value, n) => value + routed[n]);
  return { output, ids: chosen, hiddenNorm, logitsNorm, routerInput, projected, logits, experts, mlp };
}

/** The gradients of all of `LayerTensors`. */
export function layerBackward(
  config: LayerConfig,
  tensors: LayerTensors,
  forward: ReturnType<typeof layerForward>,
  gradOutput: Float64Array,
): LayerTensors {
  const { tokens, hiddenSize, keysX, keysY, training } = config;
  const keys = keysX + keysY;
  const { ids, hiddenNorm, logitsNorm, logits } = forward;
  const experts = { ...forward.experts, gradOutput };
  const fromExperts = expertsBackward(experts);
  const tables = expertsTableGradients(experts, fromExperts);
  const fromMlp = mlpBackward({ ...forward.mlp, gradOutput });
  const denseRows = (rows: Float64Array) => {
    const table = new Float64Array(keysX * keysY * hiddenSize);
    for (const [r, id] of tables.ids.entries()) {
      table.set(rows.subarray(r * hiddenSize, (r + 1) * hiddenSize), id * hiddenSize);
    }
    return table;
  };

  const backwardNorm = (
    norm: { mean: Float64Array; variance: Float64Array } | undefined,
    features: number,
    input: Float64Array,
    grad: Float64Array,
  ) => {
    if (norm === undefined) return grad;
    const { mean, variance } = norm;
    return batchNormBackward({
      tokens,
      features,
      epsilon,
      training,
      input,
      mean,
      variance,
      gradOutput: grad,
    });
  };
  const gradLogits = routerSelectBackward({ ...config, logits, ids, gradWeights: fromExperts.gradWeights });
  const gradProjected = backwardNorm(logitsNorm, keys, forward.projected, gradLogits);
  const toRouterInput = { rows: tokens, inner: keys, columns: hiddenSize };
  const gradRouterInput = matmul(gradProjected, tensors.router, toRouterInput);
  const fromRouter = backwardNorm(hiddenNorm, hiddenSize, tensors.hiddenStates, gradRouterInput);
  return {
    hiddenStates: fromRouter.map(
      (value, n) => value + fromExperts.gradHiddenStates[n] + fromMlp.gradHiddenStates[n],
    ),
    router: matmul(gradProjected, forward.routerInput, {
      rows: keys,
      inner: tokens,
      columns: hiddenSize,
      transposeA: true,
    }),
    down: denseRows(tables.down),
    up: denseRows(tables.up),
    gateProjection: fromMlp.gradGate,
    upProjection: fromMlp.gradUp,
    downProjection: fromMlp.gradDown,
  };
}
