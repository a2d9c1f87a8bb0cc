import {
  type Activation,
  type AddTo,
  type Backend,
  bufferOf,
  checkAddTo,
  countTokens,
  denseTarget,
  expectTensor,
  type FloatDType,
  floatDTypes,
  Gradients,
  initializeTensor,
  type LongJobOptions,
  Module,
  newTensor,
  type Parameter,
  type ParameterGradient,
  SeededRandom,
  type Tensor,
  TensorSlot,
  withScope,
} from "@flash-moe/core";
import { expectActivation, expectSize } from "./expect.js";

export interface SharedMlpConfig {
  /** H. */
  readonly hiddenSize: number;
  /** I. */
  readonly intermediateSize: number;
  readonly activation: Activation;
}

/** The three weights; they become the module's. */
export interface SharedMlpState {
  /** [I, H], storage dtype. */
  readonly gate: Tensor;
  /** [I, H], storage dtype. */
  readonly up: Tensor;
  /** [H, I], storage dtype. */
  readonly down: Tensor;
}

/** The dense MLP that every token passes: `m = (act(x Wg^T) * (x Wu^T)) Wd^T` (Shazeer, arXiv 2002.05202). */
export class SharedMlp extends Module {
  readonly config: SharedMlpConfig;
  readonly #gate: TensorSlot;
  readonly #up: TensorSlot;
  readonly #down: TensorSlot;

  /** INVALID_ARGUMENT if the state does not fit the configuration. */
  constructor(config: SharedMlpConfig, state: SharedMlpState) {
    super();
    validateSharedMlpConfig(config);
    const { hiddenSize, intermediateSize } = config;
    const gate = expectTensor("gate", state.gate, [intermediateSize, hiddenSize], floatDTypes);
    const { backend, dtype } = gate;
    const up = expectTensor("up", state.up, [intermediateSize, hiddenSize], [dtype], backend);
    const down = expectTensor("down", state.down, [hiddenSize, intermediateSize], [dtype], backend);
    this.config = Object.freeze({ hiddenSize, intermediateSize, activation: config.activation });
    this.#gate = new TensorSlot("gate_proj.weight", gate);
    this.#up = new TensorSlot("up_proj.weight", up);
    this.#down = new TensorSlot("down_proj.weight", down);
  }

  /** Weights uniform in +-1 / sqrt(inputs) as PyTorch's Linear. Default seed 0, dtype f32. */
  static async create(
    backend: Backend,
    config: SharedMlpConfig,
    options: LongJobOptions & { readonly seed?: number; readonly dtype?: FloatDType } = {},
  ): Promise<SharedMlp> {
    validateSharedMlpConfig(config);
    const { hiddenSize, intermediateSize } = config;
    const random = new SeededRandom(options.seed ?? 0);
    const made: Tensor[] = [];
    const make = async (name: string, rows: number, columns: number): Promise<Tensor> => {
      const bound = 1 / Math.sqrt(columns);
      const next = (): number => random.uniform(-bound, bound);
      const tensor = await initializeTensor(
        backend,
        name,
        [rows, columns],
        options.dtype ?? "f32",
        next,
        options,
      );
      made.push(tensor);
      return tensor;
    };
    try {
      const gate = await make("gate_proj.weight", intermediateSize, hiddenSize);
      const up = await make("up_proj.weight", intermediateSize, hiddenSize);
      const down = await make("down_proj.weight", hiddenSize, intermediateSize);
      return new SharedMlp(config, { gate, up, down });
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    }
  }

  get backend(): Backend {
    return this.#gate.tensor.backend;
  }

  get dtype(): FloatDType {
    return this.#gate.tensor.dtype;
  }

  /** The weights, as they are now: `moveTo` replaces them. */
  parameters(): Parameter[] {
    return [this.#gate, this.#up, this.#down];
  }

  /**
   * Hidden states [..., H] in, the same shape out. `addend` (f32 or the storage dtype, same size) is added
   * before the one rounding to `outputDType`: the storage dtype by default, or f32.
   */
  forward(
    hiddenStates: Tensor,
    options: { readonly addend?: Tensor; readonly outputDType?: FloatDType } = {},
  ): Tensor<FloatDType> {
    const tokens = this.#countTokens("hiddenStates", hiddenStates);
    return withScope(
      (scope) => {
        const dtype = options.outputDType ?? this.dtype;
        const output = scope.own(newTensor(this.backend, hiddenStates.shape, dtype, "MLP output"));
        this.backend.ops.mlpForward(
          Object.assign(this.#call(tokens, hiddenStates), {
            addend: options.addend && bufferOf("addend", options.addend),
            output: output.buffer,
          }),
        );
        return output;
      },
      (output) => [output],
    );
  }

  /** Gradients of `forward` (without its addend, whose gradient is `gradOutput` itself). */
  backward(hiddenStates: Tensor, gradOutput: Tensor, options: { readonly addTo?: AddTo } = {}): Gradients {
    const tokens = this.#countTokens("hiddenStates", hiddenStates);
    this.#countTokens("gradOutput", gradOutput);
    checkAddTo(options.addTo, hiddenStates.shape, this.parameters());
    const outputs = {
      "gate_proj.weight": "gradGate",
      "up_proj.weight": "gradUp",
      "down_proj.weight": "gradDown",
    } as const;
    return withScope(
      (scope) => {
        const addedStates = options.addTo?.hiddenStates;
        const states = addedStates ?? scope.own(newTensor(this.backend, hiddenStates.shape));
        const accumulate: ("gradHiddenStates" | "gradGate" | "gradUp" | "gradDown")[] = [];
        if (addedStates !== undefined) accumulate.push("gradHiddenStates");
        const parameters = new Map<string, ParameterGradient>();
        const gradient = (name: keyof typeof outputs, weight: Tensor) => {
          const added = denseTarget(options.addTo, name);
          if (added !== undefined) accumulate.push(outputs[name]);
          const values = added ?? scope.own(newTensor(this.backend, weight.shape));
          parameters.set(name, { layout: "dense", values });
          return values.buffer;
        };
        this.backend.ops.mlpBackward(
          Object.assign(this.#call(tokens, hiddenStates), {
            gradOutput: gradOutput.buffer,
            gradHiddenStates: states.buffer,
            gradGate: gradient("gate_proj.weight", this.#gate.tensor),
            gradUp: gradient("up_proj.weight", this.#up.tensor),
            gradDown: gradient("down_proj.weight", this.#down.tensor),
            accumulate,
          }),
        );
        return new Gradients(states, parameters, options.addTo);
      },
      (gradients) => gradients.tensors(),
    );
  }

  override slots(): TensorSlot[] {
    return [this.#gate, this.#up, this.#down];
  }

  #countTokens(name: string, states: Tensor): number {
    return countTokens(name, states, {
      backend: this.backend,
      hiddenSize: this.config.hiddenSize,
      dtype: this.dtype,
    });
  }

  #call(tokens: number, hiddenStates: Tensor) {
    const { hiddenSize, intermediateSize, activation } = this.config;
    return {
      tokens,
      hiddenSize,
      intermediateSize,
      activation,
      hiddenStates: hiddenStates.buffer,
      gate: this.#gate.tensor.buffer,
      up: this.#up.tensor.buffer,
      down: this.#down.tensor.buffer,
    };
  }
}

/** INVALID_ARGUMENT unless the configuration is one that the MLP can have. */
export function validateSharedMlpConfig(config: SharedMlpConfig): void {
  expectSize("hiddenSize", config.hiddenSize);
  expectSize("intermediateSize", config.intermediateSize);
  expectActivation(config.activation);
}
