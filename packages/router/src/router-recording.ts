import {
  type AddTo,
  checkAddTo,
  cloneTensor,
  type DeviceBuffer,
  denseTarget,
  expectTensor,
  FlashMoeError,
  type FloatDType,
  Gradients,
  newTensor,
  type Parameter,
  type ParameterGradient,
  type Tensor,
  together,
  withScope,
} from "@flash-moe/core";
import { normEpsilon, normFeatures, normMomentum, type RouterConfig } from "./config.js";
import type { RunningStatistics } from "./norm-statistics.js";
import { allocateRouting, type Routing, route, selectExperts } from "./routing.js";

/** What the norm of one recorded step used, and what it normalised. */
interface SavedNorm {
  /** [features], f32. */
  readonly mean: Tensor<"f32">;
  /** [features], f32. */
  readonly variance: Tensor<"f32">;
  /** The logits before the norm, [T, X + Y], f32; with norm "hidden", the hidden states themselves. */
  readonly input: Tensor;
}

/** Gradients that reach the router from outside. At least one is needed. */
export interface RouterOutputGradients {
  /** With respect to the routing weights, [T, k], f32. */
  readonly weights?: Tensor;
  /** With respect to the router logits, [T, X + Y], f32: of a balance loss or z-loss. */
  readonly logits?: Tensor;
}

/**
 * One routed batch and what its backward needs. The hidden states belong to the caller and must live
 * until the backward is done.
 */
export class RouterRecording implements Disposable {
  readonly routing: Routing;
  readonly #config: RouterConfig;
  readonly #weight: Tensor<FloatDType>;
  readonly #hiddenStates: Tensor;
  readonly #tokens: number;
  readonly #training: boolean;
  readonly #norm: SavedNorm | undefined;

  constructor(
    config: RouterConfig,
    weight: Tensor<FloatDType>,
    hiddenStates: Tensor,
    tokens: number,
    training: boolean,
    routing: Routing,
    norm: SavedNorm | undefined,
  ) {
    this.#config = config;
    this.#weight = weight;
    this.#hiddenStates = hiddenStates;
    this.#tokens = tokens;
    this.#training = training;
    this.routing = routing;
    this.#norm = norm;
  }

  /**
   * Gradients of the hidden states and of `router_gate.weight`, through the batch statistics in training
   * mode. With `addTo`, added to tensors of the caller. May be called more than once.
   */
  backward(outputs: RouterOutputGradients, options: { readonly addTo?: AddTo } = {}): Gradients {
    const { keysX, keysY, hiddenSize, norm } = this.#config;
    const keys = keysX + keysY;
    const tokens = this.#tokens;
    const { backend } = this.#weight;
    const { ops } = backend;
    checkAddTo(options.addTo, this.#hiddenStates.shape, this.parameters());
    const addedWeight = denseTarget(options.addTo, "router_gate.weight");
    const addedStates = options.addTo?.hiddenStates;
    return withScope(
      (scope) =>
        together(backend, () => {
          const states = addedStates ?? scope.own(newTensor(backend, this.#hiddenStates.shape));
          const weight = addedWeight ?? scope.own(newTensor(backend, [keys, hiddenSize]));

          const gradLogits = scope.own(this.#gradLogits(outputs));
          let gradProjection = gradLogits;
          if (norm === "logits" && this.#norm !== undefined) {
            gradProjection = scope.own(newTensor(backend, [tokens, keys]));
            ops.batchNormBackward(
              Object.assign(this.#normCall(this.#norm, keys), {
                gradOutput: gradLogits.buffer,
                gradInput: gradProjection.buffer,
              }),
            );
          }

          let projected = this.#hiddenStates;
          if (norm === "hidden" && this.#norm !== undefined) {
            projected = scope.own(this.#normalisedAgain(this.#norm));
          }
          ops.linear({
            rows: keys,
            inner: tokens,
            columns: hiddenSize,
            a: gradProjection.buffer,
            transposeA: true,
            b: projected.buffer,
            output: weight.buffer,
            accumulate: addedWeight && ["output"],
          });

          const normalised = norm === "hidden" && this.#norm;
          const gradProjected = normalised ? scope.own(newTensor(backend, [tokens, hiddenSize])) : states;
          ops.linear({
            rows: tokens,
            inner: keys,
            columns: hiddenSize,
            a: gradProjection.buffer,
            b: this.#weight.buffer,
            output: gradProjected.buffer,
            accumulate: addedStates && !normalised ? ["output"] : undefined,
          });
          if (normalised) {
            ops.batchNormBackward(
              Object.assign(this.#normCall(normalised, hiddenSize), {
                gradOutput: gradProjected.buffer,
                gradInput: states.buffer,
                accumulate: addedStates && ["gradInput" as const],
              }),
            );
          }
          const gradient: ParameterGradient = { layout: "dense", values: weight };
          return new Gradients(states, new Map([["router_gate.weight", gradient]]), options.addTo);
        }),
      (gradients) => gradients.tensors(),
    );
  }

  /** The weights that `backward` gives gradients of. */
  parameters(): Parameter[] {
    return [{ name: "router_gate.weight", tensor: this.#weight }];
  }

  /** Frees the routing and what was saved. Idempotent. */
  dispose(): void {
    this.routing.dispose();
    if (this.#norm === undefined) return;
    this.#norm.mean.dispose();
    this.#norm.variance.dispose();
    if (this.#norm.input !== this.#hiddenStates) this.#norm.input.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #gradLogits(outputs: RouterOutputGradients): Tensor<"f32"> {
    const { keysX, keysY, topK, normalizeWeights } = this.#config;
    if (outputs.weights === undefined && outputs.logits === undefined) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        "gradients of weights and logits are both missing; takes at least one",
      );
    }
    const { shape, backend } = this.routing.logits;
    const given =
      outputs.logits && expectTensor("the gradient of the logits", outputs.logits, shape, ["f32"], backend);
    const ofWeights =
      outputs.weights &&
      expectTensor(
        "the gradient of the weights",
        outputs.weights,
        this.routing.weights.shape,
        ["f32"],
        backend,
      );
    return withScope(
      (scope) => {
        const gradLogits = scope.own(given ? cloneTensor(given) : newTensor(this.#weight.backend, shape));
        if (ofWeights !== undefined) {
          this.#weight.backend.ops.routerSelectBackward({
            tokens: this.#tokens,
            keysX,
            keysY,
            topK,
            normalizeWeights,
            logits: this.routing.logits.buffer,
            ids: this.routing.ids.buffer,
            gradWeights: ofWeights.buffer,
            gradLogits: gradLogits.buffer,
            accumulate: given && ["gradLogits"],
          });
        }
        return gradLogits;
      },
      (gradLogits) => [gradLogits],
    );
  }

  /**
   * The normalised hidden states, [T, H], that Wr saw: they are cheaper to make again than to keep. In training from
   * statistics that are taken again too, since those that were saved are rounded to f32.
   */
  #normalisedAgain(norm: SavedNorm): Tensor<"f32"> {
    const { hiddenSize } = this.#config;
    const { backend } = this.#weight;
    return withScope(
      (scope) => {
        const output = scope.own(newTensor(backend, [this.#tokens, hiddenSize]));
        const call = Object.assign(this.#normCall(norm, hiddenSize), { output: output.buffer });
        if (this.#training) {
          const unread = (): DeviceBuffer => scope.own(newTensor(backend, [hiddenSize])).buffer;
          backend.ops.batchNormForward(
            Object.assign(call, {
              training: true as const,
              momentum: normMomentum,
              mean: unread(),
              variance: unread(),
              runningMean: unread(),
              runningVariance: unread(),
            }),
          );
        } else {
          backend.ops.batchNormForward(Object.assign(call, { training: false as const }));
        }
        return output;
      },
      (output) => [output],
    );
  }

  #normCall(norm: SavedNorm, features: number) {
    return {
      tokens: this.#tokens,
      features,
      training: this.#training,
      epsilon: normEpsilon,
      input: norm.input.buffer,
      mean: norm.mean.buffer,
      variance: norm.variance.buffer,
    };
  }
}

/** Runs the router and saves what the backward needs. */
export function recordRouting(
  config: RouterConfig,
  weight: Tensor<FloatDType>,
  statistics: RunningStatistics | undefined,
  hiddenStates: Tensor,
  tokens: number,
  training: boolean,
): RouterRecording {
  const { backend } = weight;
  const saved: Tensor[] = [];
  return withScope(
    (scope) => {
      const routing = scope.own(allocateRouting(backend, config, tokens));
      let norm: SavedNorm | undefined;
      if (statistics === undefined || !training) {
        if (statistics !== undefined) {
          // Copies: a later training step changes the running statistics.
          const mean = scope.own(cloneTensor(statistics.mean));
          const variance = scope.own(cloneTensor(statistics.variance));
          // With norm "logits", the backward of an evaluation does not look at what was normalised.
          norm = { mean, variance, input: config.norm === "hidden" ? hiddenStates : routing.logits };
          saved.push(mean, variance);
        }
        route(config, weight, norm, hiddenStates, routing, tokens);
      } else {
        const features = normFeatures(config);
        const mean = scope.own(newTensor(backend, [features]));
        const variance = scope.own(newTensor(backend, [features]));
        const between = scope.own(newTensor(backend, [tokens, features]));
        const keepsBetween = config.norm === "logits";
        norm = { mean, variance, input: keepsBetween ? between : hiddenStates };
        saved.push(mean, variance, ...(keepsBetween ? [between] : []));
        routeTraining(config, weight, statistics, hiddenStates, between, norm, routing, tokens);
      }
      return new RouterRecording(config, weight, hiddenStates, tokens, training, routing, norm);
    },
    (recording) => [recording.routing, ...saved],
  );
}

/** `route` with the statistics of the batch, written to `norm`; updates the running ones. */
function routeTraining(
  config: RouterConfig,
  weight: Tensor,
  statistics: RunningStatistics,
  hiddenStates: Tensor,
  between: Tensor,
  norm: SavedNorm,
  routing: Routing,
  tokens: number,
): void {
  const { ops } = weight.backend;
  const { hiddenSize, keysX, keysY } = config;
  const normalise = (input: Tensor, output: Tensor): void =>
    ops.batchNormForward({
      tokens,
      features: normFeatures(config),
      epsilon: normEpsilon,
      training: true,
      momentum: normMomentum,
      input: input.buffer,
      output: output.buffer,
      mean: norm.mean.buffer,
      variance: norm.variance.buffer,
      runningMean: statistics.mean.buffer,
      runningVariance: statistics.variance.buffer,
    });
  const project = (input: Tensor, output: Tensor): void =>
    ops.linear({
      rows: tokens,
      inner: hiddenSize,
      columns: keysX + keysY,
      a: input.buffer,
      b: weight.buffer,
      transposeB: true,
      output: output.buffer,
    });
  if (config.norm === "hidden") {
    normalise(hiddenStates, between);
    project(between, routing.logits);
  } else {
    project(hiddenStates, between);
    normalise(between, routing.logits);
  }
  selectExperts(config, routing, tokens);
}
