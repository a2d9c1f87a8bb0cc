import {
  type Backend,
  type DeviceBuffer,
  newTensor,
  type OpCalls,
  type OpName,
  type Scope,
  type Tensor,
} from "@flash-moe/core";
import type { FlashMoeConfig } from "flash-moe";

/** One op of the layer, ready to be called. */
export type LayerOp = {
  [Name in OpName]: {
    readonly op: Name;
    readonly call: OpCalls[Name];
    /** What it computes, for people. */
    readonly label: string;
    readonly direction: "forward" | "backward";
  };
}[OpName];

/** The weights and statistics of a layer with the norm over the hidden states. */
export type WeightName =
  | "router_gate.weight"
  | "router_norm.running_mean"
  | "router_norm.running_var"
  | "gate_proj.weight"
  | "up_proj.weight"
  | "down_proj.weight"
  | "down_embed.weight"
  | "up_embed.weight";

/** What goes into a layer, all of it on one backend. */
export interface LayerInputs {
  /** [T, H], storage dtype. */
  readonly hiddenStates: Tensor;
  /** [T, H], storage dtype. */
  readonly gradOutput: Tensor;
  readonly weights: Readonly<Record<WeightName, Tensor>>;
  /** Ids of the rows of the tables, where these are not the experts' own: [T, k], i32. */
  readonly rowIds?: Tensor<"i32">;
}

/** What comes out of it, by name. */
export interface LayerOutputs {
  readonly ids: Tensor<"i32">;
  readonly logits: Tensor<"f32">;
  readonly routingWeights: Tensor<"f32">;
  /** What is compared with the oracle; of the tables' gradients the rows that were used, ascending. */
  readonly compared: Readonly<Record<string, Tensor>>;
}

/**
 * Every op of one training step of a layer, forward and backward, in the layer's own order, each to be called and
 * timed by itself. `scope` owns the outputs.
 */
export function layerOps(
  backend: Backend,
  config: FlashMoeConfig,
  { hiddenStates, gradOutput, weights, rowIds }: LayerInputs,
  scope: Scope,
): { readonly ops: readonly LayerOp[]; readonly outputs: LayerOutputs } {
  const { hiddenSize, intermediateSize, keysX, keysY, topK, normalizeWeights, activation } = config;
  const tokens = hiddenStates.shape[0];
  const keys = keysX + keysY;
  const f32 = (...shape: number[]): Tensor<"f32"> => scope.own(newTensor(backend, shape));
  const weight = (name: WeightName): DeviceBuffer => weights[name].buffer;
  const numExperts = weights["down_embed.weight"].shape[0];
  const usedRows = Math.min(tokens * topK, numExperts);

  const normalized = f32(tokens, hiddenSize);
  const logits = f32(tokens, keys);
  const ids = scope.own(newTensor(backend, [tokens, topK], "i32"));
  const routingWeights = f32(tokens, topK);
  const shared = f32(tokens, hiddenSize);
  const output = scope.own(newTensor(backend, [tokens, hiddenSize], hiddenStates.dtype as "f32"));
  const gradHiddenStates = f32(tokens, hiddenSize);
  const gradRoutingWeights = f32(tokens, topK);
  const gradLogits = f32(tokens, keys);
  const gradNormalized = f32(tokens, hiddenSize);
  const gradRouter = f32(keys, hiddenSize);
  const gradGate = f32(intermediateSize, hiddenSize);
  const gradUp = f32(intermediateSize, hiddenSize);
  const gradDown = f32(hiddenSize, intermediateSize);
  const gradExpertsDown = f32(usedRows, hiddenSize);
  const gradExpertsUp = f32(usedRows, hiddenSize);

  const norm = {
    tokens,
    features: hiddenSize,
    epsilon: 1e-5,
    training: true,
    input: hiddenStates.buffer,
    mean: f32(hiddenSize).buffer,
    variance: f32(hiddenSize).buffer,
  } as const;
  const selection = { tokens, keysX, keysY, topK, normalizeWeights, logits: logits.buffer, ids: ids.buffer };
  const mlp = {
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    hiddenStates: hiddenStates.buffer,
    gate: weight("gate_proj.weight"),
    up: weight("up_proj.weight"),
    down: weight("down_proj.weight"),
  };
  const experts = {
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates: hiddenStates.buffer,
    down: weight("down_embed.weight"),
    up: weight("up_embed.weight"),
    ids: (rowIds ?? ids).buffer,
    weights: routingWeights.buffer,
  };

  const ops: LayerOp[] = [
    {
      op: "batchNormForward",
      label: "Norm of the states",
      direction: "forward",
      call: {
        ...norm,
        momentum: 0.1,
        output: normalized.buffer,
        runningMean: weight("router_norm.running_mean"),
        runningVariance: weight("router_norm.running_var"),
      },
    },
    {
      op: "linear",
      label: "X + Y router logits",
      direction: "forward",
      call: {
        rows: tokens,
        inner: hiddenSize,
        columns: keys,
        a: normalized.buffer,
        b: weight("router_gate.weight"),
        transposeB: true,
        output: logits.buffer,
      },
    },
    {
      op: "routerSelectForward",
      label: "Best k of X × Y pairs",
      direction: "forward",
      call: { ...selection, weights: routingWeights.buffer },
    },
    {
      op: "mlpForward",
      label: "Shared MLP",
      direction: "forward",
      call: { ...mlp, output: shared.buffer },
    },
    {
      op: "expertsForward",
      label: "Chosen experts",
      direction: "forward",
      call: { ...experts, addend: shared.buffer, output: output.buffer },
    },
    {
      op: "mlpBackward",
      label: "Shared MLP",
      direction: "backward",
      call: {
        ...mlp,
        gradOutput: gradOutput.buffer,
        gradHiddenStates: gradHiddenStates.buffer,
        gradGate: gradGate.buffer,
        gradUp: gradUp.buffer,
        gradDown: gradDown.buffer,
      },
    },
    {
      op: "expertsBackward",
      label: "Used experts",
      direction: "backward",
      call: {
        ...experts,
        gradOutput: gradOutput.buffer,
        gradHiddenStates: gradHiddenStates.buffer,
        gradWeights: gradRoutingWeights.buffer,
        gradTables: {
          layout: "compact",
          ids: scope.own(newTensor(backend, [usedRows], "i32")).buffer,
          count: scope.own(newTensor(backend, [1], "i32")).buffer,
          down: gradExpertsDown.buffer,
          up: gradExpertsUp.buffer,
        },
        accumulate: ["gradHiddenStates"],
      },
    },
    {
      op: "routerSelectBackward",
      label: "Router logits",
      direction: "backward",
      call: { ...selection, gradWeights: gradRoutingWeights.buffer, gradLogits: gradLogits.buffer },
    },
    {
      op: "linear",
      label: "Router weight",
      direction: "backward",
      call: {
        rows: keys,
        inner: tokens,
        columns: hiddenSize,
        a: gradLogits.buffer,
        transposeA: true,
        b: normalized.buffer,
        output: gradRouter.buffer,
      },
    },
    {
      op: "linear",
      label: "Normalised states",
      direction: "backward",
      call: {
        rows: tokens,
        inner: keys,
        columns: hiddenSize,
        a: gradLogits.buffer,
        b: weight("router_gate.weight"),
        output: gradNormalized.buffer,
      },
    },
    {
      op: "batchNormBackward",
      label: "Through the norm",
      direction: "backward",
      call: {
        ...norm,
        gradOutput: gradNormalized.buffer,
        gradInput: gradHiddenStates.buffer,
        accumulate: ["gradInput"],
      },
    },
  ];
  const compared = {
    "router logits": logits,
    "routing weights": routingWeights,
    output,
    "∇ hidden states": gradHiddenStates,
    "∇ routing weights": gradRoutingWeights,
    "∇ router_gate": gradRouter,
    "∇ gate_proj": gradGate,
    "∇ up_proj": gradUp,
    "∇ down_proj": gradDown,
    "∇ down_embed": gradExpertsDown,
    "∇ up_embed": gradExpertsUp,
  };
  return { ops, outputs: { ids, logits, routingWeights, compared } };
}

/** Runs one op. */
export function callOp(backend: Backend, { op, call }: LayerOp): void {
  (backend.ops[op] as (call: LayerOp["call"]) => void)(call);
}
