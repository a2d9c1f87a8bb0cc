import {
  type Activation,
  type AddTo,
  type Backend,
  bufferOf,
  checkAddTo,
  countTokens,
  denseTarget,
  expectTensor,
  FlashMoeError,
  type FloatDType,
  floatDTypes,
  Gradients,
  initializeTensor,
  type LongJobOptions,
  Module,
  newTensor,
  type Parameter,
  type ParameterGradient,
  type Scope,
  SeededRandom,
  type TableGradients,
  type Tensor,
  TensorSlot,
  withScope,
} from "@flash-moe/core";
import { expectActivation, expectSize, expectTableLayout, type TableLayout } from "./expect.js";
import { type ExpertRouting, resolveRouting } from "./expert-routing.js";

export interface ForwardOptions {
  /** Added before the one rounding: f32 or the storage dtype, of the size of the hidden states. */
  readonly addend?: Tensor;
  /** Written instead of a new tensor, and returned: of the shape and dtype of the hidden states. */
  readonly output?: Tensor;
}

export interface AtomicExpertsConfig {
  /** H. */
  readonly hiddenSize: number;
  /** N, the rows of both tables. */
  readonly numExperts: number;
  readonly activation: Activation;
}

/** The two tables; they become the module's. */
export interface AtomicExpertsState {
  /** [N, H], storage dtype: hidden to scalar. */
  readonly down: Tensor;
  /** [N, H], storage dtype: scalar to hidden. */
  readonly up: Tensor;
}

export interface ExpertsBackwardOptions {
  /** Gradients of the tables for every row (default), or only for the rows that were used. */
  readonly tables?: TableLayout;
  readonly addTo?: AddTo;
  /** f32 [T, k] that the gradient of the routing weights is added to; stays the caller's. */
  readonly addToWeights?: Tensor<"f32">;
}

/** A backward's gradients, and that of the routing weights. Owns them, except what was added to. */
export class ExpertsGradients implements Disposable {
  readonly gradients: Gradients;
  /** [T, k], f32. */
  readonly weights: Tensor<"f32">;
  readonly #addToWeights: Tensor<"f32"> | undefined;

  /** `addToWeights`: the tensor that stays the caller's, if `weights` is one. */
  constructor(gradients: Gradients, weights: Tensor<"f32">, addToWeights?: Tensor<"f32">) {
    this.gradients = gradients;
    this.weights = weights;
    this.#addToWeights = addToWeights;
  }

  /** Frees its own. Idempotent. */
  dispose(): void {
    this.gradients.dispose();
    if (this.weights !== this.#addToWeights) this.weights.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Experts of one neuron each: `e = sum_j act(x . down[id_j]) w_j up[id_j]` (OmniMoE, arXiv 2602.05711,
 * Eq. 4). Only the rows that ids name are touched.
 */
export class AtomicExperts extends Module {
  readonly config: AtomicExpertsConfig;
  readonly #down: TensorSlot;
  readonly #up: TensorSlot;

  /** INVALID_ARGUMENT if the state does not fit the configuration. */
  constructor(config: AtomicExpertsConfig, state: AtomicExpertsState) {
    super();
    validateAtomicExpertsConfig(config);
    const down = expectTensor("down", state.down, [config.numExperts, config.hiddenSize], floatDTypes);
    const { hiddenSize, numExperts, activation } = config;
    const up = expectTensor("up", state.up, [numExperts, hiddenSize], [down.dtype], down.backend);
    this.config = Object.freeze({ hiddenSize, numExperts, activation });
    this.#down = new TensorSlot("down_embed.weight", down);
    this.#up = new TensorSlot("up_embed.weight", up);
  }

  /** Tables of normal numbers with standard deviation 1 / sqrt(H). Default seed 0, dtype f32. */
  static async create(
    backend: Backend,
    config: AtomicExpertsConfig,
    options: LongJobOptions & { readonly seed?: number; readonly dtype?: FloatDType } = {},
  ): Promise<AtomicExperts> {
    validateAtomicExpertsConfig(config);
    const random = new SeededRandom(options.seed ?? 0);
    const deviation = 1 / Math.sqrt(config.hiddenSize);
    const shape = [config.numExperts, config.hiddenSize];
    const next = (): number => deviation * random.normal();
    const dtype = options.dtype ?? "f32";
    const down = await initializeTensor(backend, "down_embed.weight", shape, dtype, next, options);
    try {
      const up = await initializeTensor(backend, "up_embed.weight", shape, dtype, next, options);
      return new AtomicExperts(config, { down, up });
    } catch (error) {
      down.dispose();
      throw error;
    }
  }

  get backend(): Backend {
    return this.#down.tensor.backend;
  }

  get dtype(): FloatDType {
    return this.#down.tensor.dtype;
  }

  /** The tables, as they are now: `moveTo` replaces them. */
  parameters(): Parameter[] {
    return [this.#down, this.#up];
  }

  /**
   * Hidden states [..., H] in, the same shape out, rounded once. `addend` (f32 or the storage dtype, same
   * size) is added before the rounding. The result is a new tensor, or `output` where one is given. Ids on the host
   * are checked at once: INVALID_ARGUMENT.
   */
  forward(hiddenStates: Tensor, routing: ExpertRouting, options: ForwardOptions = {}): Tensor<FloatDType> {
    const tokens = this.#countTokens("hiddenStates", hiddenStates);
    return withScope(
      (scope) => {
        const call = this.#call(scope, tokens, hiddenStates, routing);
        const { shape } = hiddenStates;
        const output = options.output
          ? expectTensor("output", options.output, shape, [this.dtype])
          : scope.own(newTensor(this.backend, shape, this.dtype, "experts output"));
        const addend = options.addend && bufferOf("addend", options.addend);
        this.backend.ops.expertsForward(Object.assign(call, { addend, output: output.buffer }));
        return output;
      },
      (output) => [output],
    );
  }

  /** Gradients of `forward` (without its addend, whose gradient is `gradOutput` itself). */
  backward(
    hiddenStates: Tensor,
    routing: ExpertRouting,
    gradOutput: Tensor,
    options: ExpertsBackwardOptions = {},
  ): ExpertsGradients {
    const { hiddenSize, numExperts } = this.config;
    const tokens = this.#countTokens("hiddenStates", hiddenStates);
    this.#countTokens("gradOutput", gradOutput);
    const { tables: wanted = "dense" } = options;
    expectTableLayout(wanted);
    checkAddTo(options.addTo, hiddenStates.shape, this.parameters());
    const added = {
      states: options.addTo?.hiddenStates,
      down: denseTarget(options.addTo, "down_embed.weight"),
      up: denseTarget(options.addTo, "up_embed.weight"),
    };
    const compact = wanted === "compact";
    if ((added.down === undefined) !== (added.up === undefined)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        "addTo has one of down_embed.weight and up_embed.weight; takes both or none",
      );
    }
    if (compact && added.down !== undefined) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        "addTo has gradients of the tables; compact ones are not added to",
      );
    }
    return withScope(
      (scope) => {
        const call = this.#call(scope, tokens, hiddenStates, routing);
        const rows = compact ? Math.min(tokens * call.topK, numExperts) : numExperts;
        const table = (): Tensor<"f32"> => scope.own(newTensor(this.backend, [rows, hiddenSize]));
        const states = added.states ?? scope.own(newTensor(this.backend, hiddenStates.shape));
        const weightsShape = [tokens, call.topK];
        const weights =
          options.addToWeights === undefined
            ? scope.own(newTensor(this.backend, weightsShape))
            : expectTensor("addToWeights", options.addToWeights, weightsShape, ["f32"]);
        const down = added.down ?? table();
        const up = added.up ?? table();
        let tables: TableGradients = { layout: "dense", down: down.buffer, up: up.buffer };
        const layout = { down: dense(down), up: dense(up) };
        if (compact) {
          const ids = scope.own(newTensor(this.backend, [rows], "i32"));
          const count = scope.own(newTensor(this.backend, [1], "i32"));
          tables = {
            layout: "compact",
            ids: ids.buffer,
            count: count.buffer,
            down: down.buffer,
            up: up.buffer,
          };
          layout.down = { layout: "compact", values: down, ids, count };
          layout.up = { layout: "compact", values: up, ids, count };
        }
        const accumulate: ("gradHiddenStates" | "gradWeights" | "gradTables")[] = [];
        if (added.states !== undefined) accumulate.push("gradHiddenStates");
        if (added.down !== undefined) accumulate.push("gradTables");
        if (options.addToWeights !== undefined) accumulate.push("gradWeights");
        this.backend.ops.expertsBackward(
          Object.assign(call, {
            gradOutput: gradOutput.buffer,
            gradHiddenStates: states.buffer,
            gradWeights: weights.buffer,
            gradTables: tables,
            accumulate,
          }),
        );
        const parameters = new Map([
          ["down_embed.weight", layout.down],
          ["up_embed.weight", layout.up],
        ]);
        const gradients = new Gradients(states, parameters, options.addTo);
        return new ExpertsGradients(gradients, weights, options.addToWeights);
      },
      (result) => [...result.gradients.tensors(), result.weights],
    );
  }

  override slots(): TensorSlot[] {
    return [this.#down, this.#up];
  }

  #countTokens(name: string, states: Tensor): number {
    return countTokens(name, states, {
      backend: this.backend,
      hiddenSize: this.config.hiddenSize,
      dtype: this.dtype,
    });
  }

  #call(scope: Scope, tokens: number, hiddenStates: Tensor, routing: ExpertRouting) {
    const { ids, weights, topK } = resolveRouting(
      this.backend,
      scope,
      tokens,
      this.config.numExperts,
      routing,
    );
    const { hiddenSize, numExperts, activation } = this.config;
    return {
      tokens,
      hiddenSize,
      numExperts,
      topK,
      activation,
      hiddenStates: hiddenStates.buffer,
      down: this.#down.tensor.buffer,
      up: this.#up.tensor.buffer,
      ids: ids.buffer,
      weights: weights.buffer,
    };
  }
}

function dense(values: Tensor<"f32">): ParameterGradient {
  return { layout: "dense", values };
}

/** INVALID_ARGUMENT unless the configuration is one that experts can have. */
export function validateAtomicExpertsConfig(config: AtomicExpertsConfig): void {
  expectSize("hiddenSize", config.hiddenSize);
  expectSize("numExperts", config.numExperts);
  expectActivation(config.activation);
}
