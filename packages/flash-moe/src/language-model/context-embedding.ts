import {
  type Backend,
  FlashMoeError,
  type FloatDType,
  initializeTensor,
  type LongJobOptions,
  Module,
  newTensor,
  type ParameterGradient,
  SeededRandom,
  type Tensor,
  TensorSlot,
  withScope,
} from "@flash-moe/core";
import { byteValues } from "./config.js";

export interface ContextEmbeddingConfig {
  readonly window: number;
  readonly hiddenSize: number;
}

/** The name of the table, here and in checkpoints. */
export const embeddingName = "embedding.weight";

/** A batch of contexts on the device. Owns its tensors. */
export class EmbeddedContexts implements Disposable {
  readonly tokens: number;
  /** h, [T, H]. */
  readonly output: Tensor<"f32">;
  /** [T, window]. */
  readonly ids: Tensor<"i32">;
  /** [T, window], all 1. */
  readonly ones: Tensor<"f32">;
  /** [T, H], each row (1, 0, ..., 0). */
  readonly unitStates: Tensor<"f32">;

  constructor(
    tokens: number,
    output: Tensor<"f32">,
    ids: Tensor<"i32">,
    ones: Tensor<"f32">,
    unitStates: Tensor<"f32">,
  ) {
    this.tokens = tokens;
    this.output = output;
    this.ids = ids;
    this.ones = ones;
    this.unitStates = unitStates;
  }

  tensors(): Tensor[] {
    return [this.output, this.ids, this.ones, this.unitStates];
  }

  /** Idempotent. */
  dispose(): void {
    for (const tensor of this.tensors()) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Embeds the bytes of a window: `h = sum over the places d of table[d * 256 + byte at d]`, one row per byte
 * and place.
 *
 * An embedding bag is what `experts` computes when every activation is 1: with the hidden state and every
 * row of `down` the first unit vector, a_j = x . down[id_j] = 1 = relu(1), and with routing weights of 1 the
 * output is the sum of the rows of `up`. So the table is `up`, and look-up, gradient (of the used rows only)
 * and optimizer all stay on the device, on every backend, without an op of their own.
 */
export class ContextEmbedding extends Module {
  readonly config: ContextEmbeddingConfig;
  readonly #table: TensorSlot;
  readonly #unitRows: TensorSlot;

  /** `table`, [window * 256, H], f32, becomes the module's. */
  constructor(config: ContextEmbeddingConfig, table: Tensor<FloatDType>) {
    super();
    const { hiddenSize, window } = config;
    this.config = config;
    this.#table = new TensorSlot(embeddingName, table);
    const rows = window * byteValues;
    this.#unitRows = new TensorSlot("embedding.unit_rows", unitRows(table.backend, rows, hiddenSize));
  }

  /** Normal numbers whose sums over a window have a standard deviation of 1. */
  static async create(
    backend: Backend,
    config: ContextEmbeddingConfig,
    options: LongJobOptions & { readonly seed: number },
  ): Promise<ContextEmbedding> {
    const random = new SeededRandom(options.seed);
    const deviation = 1 / Math.sqrt(config.window);
    const shape = [config.window * byteValues, config.hiddenSize];
    const next = (): number => deviation * random.normal();
    const table = await initializeTensor(backend, embeddingName, shape, "f32", next, options);
    try {
      return new ContextEmbedding(config, table);
    } catch (error) {
      table.dispose();
      throw error;
    }
  }

  get table(): TensorSlot {
    return this.#table;
  }

  override slots(): TensorSlot[] {
    return [this.#table, this.#unitRows];
  }

  /** Ids as `contextIds` makes them, [T, window]; INVALID_ARGUMENT for another number of them. The caller owns the result. */
  forward(ids: Int32Array): EmbeddedContexts {
    const { hiddenSize, window } = this.config;
    const { backend } = this.#table.tensor;
    const tokens = ids.length / window;
    if (!Number.isInteger(tokens)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `ids has ${ids.length} elements; takes [tokens, window] with window ${window}`,
      );
    }
    return withScope(
      (scope) => {
        const contexts = new EmbeddedContexts(
          tokens,
          scope.own(newTensor(backend, [tokens, hiddenSize], "f32", "embedded contexts")),
          scope.own(backend.upload(ids, [tokens, window], "i32", "context ids")),
          scope.own(backend.upload(new Float32Array(ids.length).fill(1), [tokens, window])),
          scope.own(unitRows(backend, tokens, hiddenSize)),
        );
        backend.ops.expertsForward({ ...this.#call(contexts), output: contexts.output.buffer });
        return contexts;
      },
      (contexts) => contexts.tensors(),
    );
  }

  /** The gradient of the table, for the rows that were used, from that of the output, f32 [T, H]. */
  backward(contexts: EmbeddedContexts, gradOutput: Tensor<"f32">): ParameterGradient {
    const { hiddenSize, window } = this.config;
    const { backend } = this.#table.tensor;
    const capacity = Math.min(contexts.tokens * window, window * byteValues);
    return withScope(
      (scope) => {
        const values = scope.own(newTensor(backend, [capacity, hiddenSize]));
        const ids = scope.own(newTensor(backend, [capacity], "i32"));
        const count = scope.own(newTensor(backend, [1], "i32"));
        backend.ops.expertsBackward({
          ...this.#call(contexts),
          gradOutput: gradOutput.buffer,
          gradTables: { layout: "compact", ids: ids.buffer, count: count.buffer, up: values.buffer },
        });
        return { layout: "compact", values, ids, count } as const;
      },
      ({ values, ids, count }) => [values, ids, count],
    );
  }

  #call(contexts: EmbeddedContexts) {
    const { hiddenSize, window } = this.config;
    return {
      tokens: contexts.tokens,
      hiddenSize,
      numExperts: window * byteValues,
      topK: window,
      activation: "relu",
      hiddenStates: contexts.unitStates.buffer,
      down: this.#unitRows.tensor.buffer,
      up: this.#table.tensor.buffer,
      ids: contexts.ids.buffer,
      weights: contexts.ones.buffer,
    } as const;
  }
}

/** [rows, columns], each row (1, 0, ..., 0). */
function unitRows(backend: Backend, rows: number, columns: number): Tensor<"f32"> {
  const values = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) values[row * columns] = 1;
  return backend.upload(values, [rows, columns], "f32", "unit rows");
}
