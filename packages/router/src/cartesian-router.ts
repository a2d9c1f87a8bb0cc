import {
  type Backend,
  cloneTensor,
  countTokens,
  expectInteger,
  expectOneOf,
  expectTensor,
  FlashMoeError,
  type FloatDType,
  floatDTypes,
  initializeTensor,
  type LongJobOptions,
  Module,
  type Parameter,
  SeededRandom,
  type Tensor,
  TensorSlot,
  withScope,
} from "@flash-moe/core";
import { normFeatures, type RouterConfig, validateRouterConfig } from "./config.js";
import { freshStatistics, type RunningStatistics } from "./norm-statistics.js";
import { type RouterRecording, recordRouting } from "./router-recording.js";
import { allocateRouting, type Routing, route } from "./routing.js";

/** What a router is made of. It becomes the router's. */
export interface RouterState {
  /** Wr, [X + Y, H], storage dtype: the x keys' rows first. */
  readonly weight: Tensor;
  /** Needed unless `norm` is "none". */
  readonly statistics?: { readonly mean: Tensor; readonly variance: Tensor };
  /** Training steps that the running statistics have seen. */
  readonly batchesTracked?: number;
}

/**
 * Cartesian Product Router: picks k of X * Y experts per token from X + Y logits, exactly.
 *
 * `l = norm(x) Wr^T`, then per token the k pairs (i, j) with the largest
 * `(lx[i] - max lx) + (ly[j] - max ly)`; expert id = i * Y + j; routing weight =
 * `exp(log_softmax(lx)[i] + log_softmax(ly)[j])` (OmniMoE, arXiv 2602.05711, Eqs. 9 to 11).
 */
export class CartesianRouter extends Module {
  readonly config: RouterConfig;
  readonly #weight: TensorSlot;
  readonly #mean: TensorSlot | undefined;
  readonly #variance: TensorSlot | undefined;
  #batchesTracked: number;

  /** INVALID_ARGUMENT if the state does not fit the configuration. */
  constructor(config: RouterConfig, state: RouterState) {
    super();
    validateRouterConfig(config);
    const features = normFeatures(config);
    const weight = expectTensor(
      "weight",
      state.weight,
      [config.keysX + config.keysY, config.hiddenSize],
      floatDTypes,
    );
    this.#weight = new TensorSlot("router_gate.weight", weight);
    if (features > 0) {
      if (state.statistics === undefined) {
        throw new FlashMoeError(
          "INVALID_ARGUMENT",
          `statistics are missing; norm ${config.norm} needs ${features} of them`,
        );
      }
      const { backend } = weight;
      const statistic = (which: "mean" | "variance"): Tensor<"f32"> =>
        expectTensor(`statistics.${which}`, state.statistics![which], [features], ["f32"], backend);
      const [mean, variance] = [statistic("mean"), statistic("variance")];
      this.#mean = new TensorSlot("router_norm.running_mean", mean);
      this.#variance = new TensorSlot("router_norm.running_var", variance);
    }
    const { hiddenSize, keysX, keysY, topK, norm, normalizeWeights } = config;
    this.config = Object.freeze({ hiddenSize, keysX, keysY, topK, norm, normalizeWeights });
    this.#batchesTracked = state.batchesTracked ?? 0;
    expectInteger("batchesTracked", this.#batchesTracked, 0);
  }

  /** A router with fresh weights, uniform in +-1 / sqrt(H) as PyTorch's Linear. Default seed 0, dtype f32. */
  static async create(
    backend: Backend,
    config: RouterConfig,
    options: LongJobOptions & { readonly seed?: number; readonly dtype?: FloatDType } = {},
  ): Promise<CartesianRouter> {
    validateRouterConfig(config);
    const random = new SeededRandom(options.seed ?? 0);
    const bound = 1 / Math.sqrt(config.hiddenSize);
    const shape = [config.keysX + config.keysY, config.hiddenSize];
    const next = (): number => random.uniform(-bound, bound);
    const weight = await initializeTensor(
      backend,
      "router_gate.weight",
      shape,
      options.dtype ?? "f32",
      next,
      options,
    );
    try {
      const features = normFeatures(config);
      return new CartesianRouter(config, {
        weight,
        statistics: features > 0 ? freshStatistics(backend, features) : undefined,
      });
    } catch (error) {
      weight.dispose();
      throw error;
    }
  }

  get backend(): Backend {
    return this.#weight.tensor.backend;
  }

  get dtype(): FloatDType {
    return this.#weight.tensor.dtype;
  }

  /** Running statistics of the norm; undefined with norm "none". */
  get statistics(): RunningStatistics | undefined {
    if (this.#mean === undefined || this.#variance === undefined) return undefined;
    return { mean: this.#mean.tensor as Tensor<"f32">, variance: this.#variance.tensor as Tensor<"f32"> };
  }

  /** Training steps that the running statistics have seen (PyTorch's num_batches_tracked). */
  get batchesTracked(): number {
    return this.#batchesTracked;
  }

  /** The weights, as they are now: `moveTo` replaces them. */
  parameters(): Parameter[] {
    return [this.#weight];
  }

  /** Routes hidden states [..., H] with the running statistics. The caller owns the result. */
  forward(hiddenStates: Tensor): Routing {
    const tokens = this.#countTokens(hiddenStates);
    return withScope(
      (scope) => {
        const routing = scope.own(allocateRouting(this.backend, this.config, tokens));
        route(this.config, this.#weight.tensor, this.statistics, hiddenStates, routing, tokens);
        return routing;
      },
      (routing) => [routing],
    );
  }

  /**
   * Routes hidden states [..., H] and keeps what the backward needs. In training mode (the default) the
   * norm uses the statistics of this batch (at least 2 tokens) and updates the running ones; otherwise
   * it uses the running ones as they are now. The hidden states must live until the backward is done.
   */
  record(hiddenStates: Tensor, options: { readonly training?: boolean } = {}): RouterRecording {
    return this.recordFor(hiddenStates, options, (recording) => recording);
  }

  /**
   * `record` for a `work` that goes on with it, as one step: where either throws, the recording is freed and the
   * running statistics are as before.
   */
  recordFor<Result>(
    hiddenStates: Tensor,
    options: { readonly training?: boolean },
    work: (recording: RouterRecording) => Result,
  ): Result {
    const training = options.training ?? true;
    expectOneOf("training", training, [true, false]);
    const tokens = this.#countTokens(hiddenStates);
    const { statistics } = this;
    const step = (): Result => {
      const recording = recordRouting(
        this.config,
        this.#weight.tensor,
        statistics,
        hiddenStates,
        tokens,
        training,
      );
      try {
        return work(recording);
      } catch (error) {
        recording.dispose();
        throw error;
      }
    };
    if (!training || statistics === undefined) return step();
    return withScope((scope) => {
      const before = [statistics.mean, statistics.variance].map(
        (tensor) => [tensor, scope.own(cloneTensor(tensor))] as const,
      );
      try {
        const result = step();
        this.#batchesTracked++;
        return result;
      } catch (error) {
        for (const [tensor, copy] of before) this.backend.copy(copy.buffer, tensor.buffer);
        throw error;
      }
    });
  }

  override slots(): TensorSlot[] {
    return [this.#weight, this.#mean, this.#variance].filter((slot) => slot !== undefined);
  }

  #countTokens(hiddenStates: Tensor): number {
    return countTokens("hiddenStates", hiddenStates, {
      backend: this.backend,
      hiddenSize: this.config.hiddenSize,
      dtype: this.dtype,
    });
  }
}
