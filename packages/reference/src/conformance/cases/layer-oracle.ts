import type { Activation, FloatDType } from "@flash-moe/core";
import {
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
} from "../../oracle/batch-norm.js";
import { expertsBackward, expertsForward, expertsTableGradients, rowsOf } from "../../oracle/experts.js";
import { matmul } from "../../oracle/matmul.js";
import { mlpBackward, mlpForward } from "../../oracle/mlp.js";
import { routerSelectBackward, routingWeights } from "../../oracle/router-select.js";
import type { HostFloats, Inputs } from "../inputs.js";

/** A whole layer: router with a norm over the hidden states, shared MLP, experts. */
export interface LayerConfig {
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  /** Whether the norm takes the statistics of the batch. */
  readonly training: boolean;
  readonly normalizeWeights: boolean;
  readonly activation: Activation;
}

/** Its parameters and inputs on the host, in the storage dtype; the running statistics in f32. */
export interface LayerHost {
  readonly hiddenStates: HostFloats;
  readonly gradOutput: HostFloats;
  readonly routerGate: HostFloats;
  readonly runningMean: HostFloats;
  readonly runningVariance: HostFloats;
  readonly gate: HostFloats;
  readonly up: HostFloats;
  readonly down: HostFloats;
  readonly expertsDown: HostFloats;
  readonly expertsUp: HostFloats;
}

export function makeLayer(inputs: Inputs, config: LayerConfig, dtype: FloatDType): LayerHost {
  const { tokens, hiddenSize, intermediateSize, keysX, keysY } = config;
  const scale = 1 / Math.sqrt(hiddenSize);
  const rows = keysX * keysY;
  return {
    hiddenStates: inputs.normal(tokens * hiddenSize, dtype, 1, 0.5),
    gradOutput: inputs.normal(tokens * hiddenSize, dtype),
    routerGate: inputs.normal((keysX + keysY) * hiddenSize, dtype, scale),
    runningMean: inputs.normal(hiddenSize, "f32", 0.3, 0.5),
    runningVariance: inputs.positive(hiddenSize),
    gate: inputs.normal(intermediateSize * hiddenSize, dtype, scale),
    up: inputs.normal(intermediateSize * hiddenSize, dtype, scale),
    down: inputs.normal(intermediateSize * hiddenSize, dtype, 1 / Math.sqrt(intermediateSize)),
    expertsDown: inputs.normal(rows * hiddenSize, dtype, scale),
    expertsUp: inputs.normal(rows * hiddenSize, dtype),
  };
}

/** Every result of the layer that has these experts, by name, in float64. */
export function oracleLayer(
  config: LayerConfig,
  host: LayerHost,
  ids: Int32Array,
): Record<string, Float64Array> {
  const { tokens, hiddenSize, keysX, keysY, training, activation } = config;
  const keys = keysX + keysY;
  const input = host.hiddenStates.values;
  const gradOutput = host.gradOutput.values;
  const routerGate = host.routerGate.values;
  const running = { runningMean: host.runningMean.values, runningVariance: host.runningVariance.values };
  const batch = { tokens, features: hiddenSize, epsilon: 1e-5, input };
  const trained = training ? batchNormTrainingForward({ ...batch, momentum: 0.1, ...running }) : undefined;
  const statistics = trained ?? { mean: running.runningMean, variance: running.runningVariance };
  const { mean, variance } = statistics;
  const normalized = trained?.output ?? batchNormEvaluationForward({ ...batch, mean, variance });
  const toKeys = { rows: tokens, inner: hiddenSize, columns: keys, transposeB: true };
  const logits = matmul(normalized, routerGate, toKeys);
  const router = { ...config, logits, ids };
  const weights = routingWeights(router);
  const mlp = {
    ...config,
    hiddenStates: input,
    gate: host.gate.values,
    up: host.up.values,
    down: host.down.values,
    gradOutput,
  };
  const experts = {
    ...config,
    numExperts: keysX * keysY,
    activation,
    hiddenStates: input,
    down: rowsOf(host.expertsDown.values, hiddenSize),
    up: rowsOf(host.expertsUp.values, hiddenSize),
    ids,
    weights,
    gradOutput,
  };
  const shared = mlpForward(mlp);
  const output = expertsForward(experts).map((value, n) => value + shared[n]);

  const throughExperts = expertsBackward(experts);
  const tables = expertsTableGradients(experts, throughExperts);
  const throughMlp = mlpBackward(mlp);
  const { gradWeights } = throughExperts;
  const gradLogits = routerSelectBackward({ ...router, gradWeights });
  const toGate = { rows: keys, inner: tokens, columns: hiddenSize, transposeA: true };
  const gradRouterGate = matmul(gradLogits, normalized, toGate);
  const gradNormalized = matmul(gradLogits, routerGate, { rows: tokens, inner: keys, columns: hiddenSize });
  const throughNorm = batchNormBackward({ ...batch, training, mean, variance, gradOutput: gradNormalized });
  return {
    logits,
    weights,
    output,
    gradHiddenStates: throughExperts.gradHiddenStates.map(
      (value, n) => value + throughMlp.gradHiddenStates[n] + throughNorm[n],
    ),
    gradWeights,
    gradLogits,
    gradRouterGate,
    gradExpertsDown: scatterRows(tables.down, tables.ids, experts.numExperts, hiddenSize),
    gradExpertsUp: scatterRows(tables.up, tables.ids, experts.numExperts, hiddenSize),
    gradMlpGate: throughMlp.gradGate,
    gradMlpUp: throughMlp.gradUp,
    gradMlpDown: throughMlp.gradDown,
    runningMean: trained?.runningMean ?? running.runningMean,
    runningVariance: trained?.runningVariance ?? running.runningVariance,
  };
}

/** Compact rows in their places among all `rows`, zeros elsewhere. */
function scatterRows(compact: Float64Array, ids: Int32Array, rows: number, columns: number): Float64Array {
  const dense = new Float64Array(rows * columns);
  ids.forEach((id, r) => {
    dense.set(compact.subarray(r * columns, (r + 1) * columns), id * columns);
  });
  return dense;
}
