// One case on one backend: its tensors, its calls, and what they compute.

import { AtomicExperts, SharedMlp, SparseFfn } from "@flash-moe/ffn";
import { CartesianRouter } from "@flash-moe/router";
import { FlashMoE } from "flash-moe";
import { constant, integers, uniform, writeOnce } from "./tensors.mjs";

/** Gradients of tables up to this size are written for comparison. */
const comparedTableElements = 2 ** 24;

/**
 * @typedef {import("@flash-moe/core").Tensor} Tensor
 * @typedef {import("./tensors.mjs").HostTensor} HostTensor
 * @typedef {{ calls: Record<string, () => void>, results: () => Record<string, Tensor> }} Work
 *   calls: each enqueues one measured operation; results: outputs by the names that the others use, after the calls
 */

/** The tensors that several cases share, and those of this one. @param {import("./cases.mjs").Case} size */
export function inputsOf({ kind, dtype, tokens, hidden, keys, experts, topK, inner }) {
  const states = [tokens, hidden];
  const fanIn = hidden ** -0.5;
  /** @type {Record<string, HostTensor>} */
  const own = {};
  /** @type {Record<string, HostTensor>} */
  const shared = {};
  if (kind === "linear") {
    own.a = uniform(states, dtype, 1, 1);
    own.b = uniform([inner, hidden], dtype, fanIn, 2);
    return { own, shared };
  }
  if (kind !== "router") {
    own.hidden_states = uniform(states, dtype, 1, 1);
    own.grad_output = uniform(states, dtype, 1, 2);
  }
  if (kind === "router") own.logits = uniform([tokens, 2 * keys], "f32", 1, 3);
  if (kind === "router" || kind === "experts") own.grad_weights = uniform([tokens, topK], "f32", 1, 4);
  if (kind === "experts") {
    own.ids = integers([tokens, topK], experts, 5);
    own.weights = uniform([tokens, topK], "f32", 0.1, 6);
  }
  if (kind === "experts" || kind === "layer") Object.assign(shared, tablesOf(experts, hidden, dtype));
  if (kind === "mlp" || kind === "layer") {
    own.gate_proj = uniform([inner, hidden], dtype, fanIn, 9);
    own.up_proj = uniform([inner, hidden], dtype, fanIn, 10);
    own.down_proj = uniform([hidden, inner], dtype, inner ** -0.5, 11);
  }
  if (kind === "layer") {
    own.router_gate = uniform([2 * keys, hidden], dtype, 2 * fanIn, 12);
    own.running_mean = constant(0, [hidden]);
    own.running_var = constant(1, [hidden]);
  }
  return { own, shared };
}

/** Made once: there are hundreds of millions of numbers. @type {Map<string, Record<string, HostTensor>>} */
const madeTables = new Map();

/** @param {number} experts @param {number} hidden @param {"bf16" | "f32"} dtype */
function tablesOf(experts, hidden, dtype) {
  const name = sharedName({ dtype, hidden, experts });
  const made = madeTables.get(name) ?? {
    down: uniform([experts, hidden], dtype, hidden ** -0.5, 7),
    up: uniform([experts, hidden], dtype, 1, 8),
  };
  madeTables.set(name, made);
  return made;
}

/** The file of tensors that cases of the same tables share. @param {{ dtype: string, hidden: number, experts: number }} size */
export function sharedName({ dtype, hidden, experts }) {
  return `tables-${experts}-${hidden}-${dtype}`;
}

/** @param {string} folder @param {string} name @param {Work} work */
export async function writeResults(folder, name, work) {
  /** @type {Record<string, HostTensor>} */
  const results = {};
  for (const [key, tensor] of Object.entries(work.results())) {
    if (tensor.buffer.length > comparedTableElements && key.startsWith("grad_tables")) continue;
    const values = /** @type {HostTensor["values"]} */ (await tensor.readRaw());
    results[key] = { values, shape: [...tensor.shape], dtype: /** @type {"f32"} */ (tensor.dtype) };
  }
  await writeOnce(folder, `${name}.ours`, results);
}

/**
 * @param {import("@flash-moe/core").Backend} backend @param {import("./cases.mjs").Case} size
 * @param {Record<string, Tensor>} inputs
 * @returns {Work}
 */
export function workOf(backend, size, inputs) {
  switch (size.kind) {
    case "router":
      return routerWork(backend, size, inputs);
    case "experts":
      return expertsWork(backend, size, inputs);
    case "mlp":
      return mlpWork(backend, size, inputs);
    case "layer":
      return layerWork(size, inputs);
    case "linear":
      return linearWork(backend, size, inputs);
  }
}

/** @typedef {(backend: import("@flash-moe/core").Backend, size: import("./cases.mjs").Case, inputs: Record<string, Tensor>) => Work} MakeWork */

/** @type {MakeWork} */
function routerWork(backend, { tokens, keys, topK }, { logits, grad_weights }) {
  const ids = backend.zeros([tokens, topK], "i32");
  const weights = backend.zeros([tokens, topK]);
  const gradLogits = backend.zeros([tokens, 2 * keys]);
  const shape = {
    tokens,
    keysX: keys,
    keysY: keys,
    topK,
    normalizeWeights: false,
    logits: logits.buffer,
    ids: ids.buffer,
  };
  const { ops } = backend;
  return {
    calls: {
      forward: () => ops.routerSelectForward({ ...shape, weights: weights.buffer }),
      backward: () =>
        ops.routerSelectBackward({
          ...shape,
          gradWeights: grad_weights.buffer,
          gradLogits: gradLogits.buffer,
        }),
    },
    results: () => ({ ids, weights, grad_logits: gradLogits }),
  };
}

/** @type {MakeWork} */
function expertsWork(backend, size, inputs) {
  const { tokens, hidden, experts, topK, dtype } = size;
  const output = backend.zeros([tokens, hidden], dtype);
  const gradStates = backend.zeros([tokens, hidden]);
  const gradWeights = backend.zeros([tokens, topK]);
  const dense = { down: backend.zeros([experts, hidden]), up: backend.zeros([experts, hidden]) };
  const rows = Math.min(tokens * topK, experts);
  const compact = {
    ids: backend.zeros([rows], "i32"),
    count: backend.zeros([1], "i32"),
    down: backend.zeros([rows, hidden]),
    up: backend.zeros([rows, hidden]),
  };
  const shape = {
    tokens,
    hiddenSize: hidden,
    numExperts: experts,
    topK,
    activation: /** @type {const} */ ("silu"),
    hiddenStates: inputs.hidden_states.buffer,
    down: inputs.down.buffer,
    up: inputs.up.buffer,
    ids: inputs.ids.buffer,
    weights: inputs.weights.buffer,
  };
  const gradients = {
    gradOutput: inputs.grad_output.buffer,
    gradHiddenStates: gradStates.buffer,
    gradWeights: gradWeights.buffer,
  };
  const { ops } = backend;
  return {
    calls: {
      forward: () => ops.expertsForward({ ...shape, output: output.buffer }),
      backward: () =>
        ops.expertsBackward({
          ...shape,
          ...gradients,
          gradTables: { layout: "dense", down: dense.down.buffer, up: dense.up.buffer },
        }),
      "backward, compact": () =>
        ops.expertsBackward({
          ...shape,
          ...gradients,
          gradTables: {
            layout: "compact",
            ids: compact.ids.buffer,
            count: compact.count.buffer,
            down: compact.down.buffer,
            up: compact.up.buffer,
          },
        }),
    },
    results: () => ({
      output,
      grad_hidden_states: gradStates,
      grad_weights: gradWeights,
      grad_tables_down: dense.down,
      grad_tables_up: dense.up,
    }),
  };
}

/** @type {MakeWork} */
function mlpWork(backend, { tokens, hidden, inner, dtype }, inputs) {
  const output = backend.zeros([tokens, hidden], dtype);
  const gradients = {
    gradHiddenStates: backend.zeros([tokens, hidden]),
    gradGate: backend.zeros([inner, hidden]),
    gradUp: backend.zeros([inner, hidden]),
    gradDown: backend.zeros([hidden, inner]),
  };
  const shape = {
    tokens,
    hiddenSize: hidden,
    intermediateSize: inner,
    activation: /** @type {const} */ ("silu"),
    hiddenStates: inputs.hidden_states.buffer,
    gate: inputs.gate_proj.buffer,
    up: inputs.up_proj.buffer,
    down: inputs.down_proj.buffer,
  };
  const { ops } = backend;
  const buffers = Object.fromEntries(Object.entries(gradients).map(([name, { buffer }]) => [name, buffer]));
  return {
    calls: {
      forward: () => ops.mlpForward({ ...shape, output: output.buffer }),
      backward: () => ops.mlpBackward({ ...shape, gradOutput: inputs.grad_output.buffer, ...buffers }),
    },
    results: () => ({
      output,
      grad_hidden_states: gradients.gradHiddenStates,
      grad_gate_proj: gradients.gradGate,
      grad_up_proj: gradients.gradUp,
      grad_down_proj: gradients.gradDown,
    }),
  };
}

/** @type {MakeWork} */
function linearWork(backend, { dtype, tokens, hidden, inner }, { a, b }) {
  const output = backend.zeros([tokens, inner], dtype);
  const call = { rows: tokens, inner: hidden, columns: inner, a: a.buffer, b: b.buffer, transposeB: true };
  return {
    calls: { forward: () => backend.ops.linear({ ...call, output: output.buffer }) },
    results: () => ({ output }),
  };
}

/**
 * @param {import("./cases.mjs").Case} size @param {Record<string, Tensor>} inputs
 * @returns {Work}
 */
function layerWork({ hidden, inner, keys, experts, topK }, inputs) {
  const activation = /** @type {const} */ ("silu");
  const router = new CartesianRouter(
    { hiddenSize: hidden, keysX: keys, keysY: keys, topK, norm: "hidden", normalizeWeights: false },
    {
      weight: inputs.router_gate,
      statistics: { mean: inputs.running_mean, variance: inputs.running_var },
    },
  );
  const table = { down: inputs.down, up: inputs.up };
  const ffn = new SparseFfn(
    new AtomicExperts({ hiddenSize: hidden, numExperts: experts, activation }, table),
    new SharedMlp(
      { hiddenSize: hidden, intermediateSize: inner, activation },
      { gate: inputs.gate_proj, up: inputs.up_proj, down: inputs.down_proj },
    ),
  );
  const layer = new FlashMoE(router, ffn);
  const recording = layer.record(inputs.hidden_states, { training: false });
  const backward = (/** @type {"dense" | "compact"} */ tables) =>
    recording.backward(inputs.grad_output, { tables });
  return {
    calls: {
      forward: () => layer.forward(inputs.hidden_states).dispose(),
      backward: () => backward("dense").dispose(),
      "backward, compact": () => backward("compact").dispose(),
      "router alone": () => router.forward(inputs.hidden_states).dispose(),
      "experts alone": () => ffn.experts.forward(inputs.hidden_states, recording.routing).dispose(),
      "mlp alone": () => ffn.mlp.forward(inputs.hidden_states).dispose(),
    },
    results: () => {
      const gradients = backward("compact");
      return {
        output: recording.output,
        ids: recording.routing.ids,
        weights: recording.routing.weights,
        grad_hidden_states: gradients.hiddenStates,
      };
    },
  };
}
