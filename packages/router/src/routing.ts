import { type Backend, newTensor, type Tensor, withScope } from "@flash-moe/core";
import { normEpsilon, type RouterConfig } from "./config.js";
import type { RunningStatistics } from "./norm-statistics.js";

/** Which experts each token goes to, and how much. Owns its tensors. */
export class Routing implements Disposable {
  /** The router logits, [T, X + Y], f32, after the norm: the x keys first. */
  readonly logits: Tensor<"f32">;
  /** Expert ids i * Y + j, [T, k], i32, best first. */
  readonly ids: Tensor<"i32">;
  /** Routing weights, [T, k], f32. */
  readonly weights: Tensor<"f32">;

  constructor(logits: Tensor<"f32">, ids: Tensor<"i32">, weights: Tensor<"f32">) {
    this.logits = logits;
    this.ids = ids;
    this.weights = weights;
  }

  /** Idempotent. */
  dispose(): void {
    this.logits.dispose();
    this.ids.dispose();
    this.weights.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Tensors for the routing of `tokens` tokens, contents unspecified. */
export function allocateRouting(backend: Backend, config: RouterConfig, tokens: number): Routing {
  const { keysX, keysY, topK } = config;
  return withScope(
    (scope) =>
      new Routing(
        scope.own(newTensor(backend, [tokens, keysX + keysY], "f32", "router logits")),
        scope.own(newTensor(backend, [tokens, topK], "i32", "expert ids")),
        scope.own(newTensor(backend, [tokens, topK], "f32", "routing weights")),
      ),
    (routing) => [routing.logits, routing.ids, routing.weights],
  );
}

/** Fills ids and weights from the logits. */
export function selectExperts(config: RouterConfig, routing: Routing, tokens: number): void {
  const { keysX, keysY, topK, normalizeWeights } = config;
  routing.logits.backend.ops.routerSelectForward({
    tokens,
    keysX,
    keysY,
    topK,
    normalizeWeights,
    logits: routing.logits.buffer,
    ids: routing.ids.buffer,
    weights: routing.weights.buffer,
  });
}

/** Fills logits, ids and weights of hidden states [T, H], the norm (if there is one) with given statistics. */
export function route(
  config: RouterConfig,
  weight: Tensor,
  statistics: RunningStatistics | undefined,
  hiddenStates: Tensor,
  routing: Routing,
  tokens: number,
): void {
  const { hiddenSize, keysX, keysY, norm } = config;
  const normalise = statistics && {
    mean: statistics.mean.buffer,
    variance: statistics.variance.buffer,
    epsilon: normEpsilon,
  };
  weight.backend.ops.linear({
    rows: tokens,
    inner: hiddenSize,
    columns: keysX + keysY,
    a: hiddenStates.buffer,
    b: weight.buffer,
    transposeB: true,
    output: routing.logits.buffer,
    inputNorm: norm === "hidden" ? normalise : undefined,
    outputNorm: norm === "logits" ? normalise : undefined,
  });
  selectExperts(config, routing, tokens);
}
