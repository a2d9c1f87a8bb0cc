/**
 * A byte language model whose feed-forward is a FlashMoE layer:
 *
 *     h      = sum over the places d of embedding[d * 256 + byte at d]      a window of the last bytes
 *     z      = h + FlashMoE(h)
 *     logits = z W_head^T                                                  of the next byte, [T, 256]
 *
 * Embedding and head are linear: all that the model knows of which bytes go together, beyond what each says
 * on its own, is in the layer. Everything runs through backend ops, so the model runs where the layer does.
 */
import {
  type Backend,
  cloneTensor,
  Gradients,
  type LongJobOptions,
  Module,
  type Parameter,
  type ParameterGradient,
  Scope,
  type Tensor,
  type TensorSlot,
  withScope,
} from "@flash-moe/core";
import type { Routing } from "@flash-moe/router";
import { FlashMoE } from "../layer/flash-moe.js";
import type { FlashMoeRecording } from "../layer/recording.js";
import { type LanguageModelConfig, type LanguageModelOptions, languageModelConfig } from "./config.js";
import { ContextEmbedding, type EmbeddedContexts, embeddingName } from "./context-embedding.js";
import { headName, OutputHead } from "./output-head.js";

/** What stands before the names of the layer's parameters, here and in checkpoints. */
export const layerPrefix = "mlp.";

/** The modules that a model is made of; they become the model's. */
export interface LanguageModelParts {
  readonly embedding: ContextEmbedding;
  readonly layer: FlashMoE;
  readonly head: OutputHead;
}

export class LanguageModel extends Module {
  readonly config: LanguageModelConfig;
  readonly layer: FlashMoE;
  readonly #embedding: ContextEmbedding;
  readonly #head: OutputHead;

  constructor(config: LanguageModelConfig, { embedding, layer, head }: LanguageModelParts) {
    super();
    this.config = config;
    this.layer = layer;
    this.#embedding = embedding;
    this.#head = head;
  }

  /** A model with fresh weights, f32; the same seed (default 0) gives the same weights on every backend. */
  static async create(
    backend: Backend,
    options: LanguageModelOptions = {},
    create: LongJobOptions & { readonly seed?: number } = {},
  ): Promise<LanguageModel> {
    const config = languageModelConfig(options);
    const { hiddenSize } = config.layer;
    const seed = create.seed ?? 0;
    const scope = new Scope();
    try {
      // The layer takes three seeds from its own on.
      const layer = scope.own(await FlashMoE.create(backend, config.layer, { ...create, seed }));
      const embedding = scope.own(
        await ContextEmbedding.create(
          backend,
          { window: config.window, hiddenSize },
          { ...create, seed: seed + 3 },
        ),
      );
      const head = await OutputHead.create(backend, hiddenSize, { ...create, seed: seed + 4 });
      return new LanguageModel(config, { embedding, layer, head });
    } catch (error) {
      scope.end();
      throw error;
    }
  }

  get backend(): Backend {
    return this.layer.backend;
  }

  /** Every weight that is learnt, the layer's under `layerPrefix`. `moveTo` replaces the tensors. */
  parameters(): Parameter[] {
    const ofLayer = this.layer.parameters().map(({ name, tensor }) => ({ name: layerPrefix + name, tensor }));
    return [this.#embedding.table, ...ofLayer, this.#head.weight];
  }

  /**
   * Logits of the next byte, f32 [T, 256], from ids that `contextIds` made, with the running statistics of
   * the layer's norm. The caller owns the result.
   */
  forward(ids: Int32Array): Tensor<"f32"> {
    return withScope((scope) => {
      const contexts = scope.own(this.#embedding.forward(ids));
      const states = scope.own(this.layer.forward(contexts.output, { addend: contexts.output }));
      return this.#head.forward(states);
    });
  }

  /**
   * `forward` that keeps what the backward needs. In training mode (the default) the layer's norm uses the
   * statistics of this batch (at least 2 tokens) and updates the running ones. The caller owns the result.
   */
  record(ids: Int32Array, options: { readonly training?: boolean } = {}): LanguageModelRecording {
    const contexts = this.#embedding.forward(ids);
    try {
      const layerOptions = { ...options, addend: contexts.output };
      return this.layer.recordFor(contexts.output, layerOptions, (layer) => {
        const logits = this.#head.forward(layer.output);
        return new LanguageModelRecording(this.#embedding, this.#head, contexts, layer, logits);
      });
    } catch (error) {
      contexts.dispose();
      throw error;
    }
  }

  override slots(): TensorSlot[] {
    return [...this.#embedding.slots(), ...this.layer.slots(), ...this.#head.slots()];
  }
}

/** One batch through a model, and what its backward needs. Owns its tensors. */
export class LanguageModelRecording implements Disposable {
  /** [T, 256]. */
  readonly logits: Tensor<"f32">;
  readonly #embedding: ContextEmbedding;
  readonly #head: OutputHead;
  readonly #contexts: EmbeddedContexts;
  readonly #layer: FlashMoeRecording;

  constructor(
    embedding: ContextEmbedding,
    head: OutputHead,
    contexts: EmbeddedContexts,
    layer: FlashMoeRecording,
    logits: Tensor<"f32">,
  ) {
    this.#embedding = embedding;
    this.#head = head;
    this.#contexts = contexts;
    this.#layer = layer;
    this.logits = logits;
  }

  /** Which experts the batch went to. */
  get routing(): Routing {
    return this.#layer.routing;
  }

  /**
   * From the gradient of the logits, f32 [T, 256], those of h (as `hiddenStates`) and of every parameter,
   * under the names of `LanguageModel.parameters`; those of the tables for the rows that were used.
   */
  backward(gradLogits: Tensor<"f32">): Gradients {
    return withScope(
      (scope) => {
        const head = this.#head.backward(this.#layer.output, gradLogits);
        const gradOutput = scope.own(head.hiddenStates);
        scope.own(head.weight);
        // The residual: h reaches the head directly, and through the layer, whose gradient is added.
        const hiddenStates = scope.own(cloneTensor(gradOutput));
        const layer = this.#layer.backward(gradOutput, { tables: "compact", addTo: { hiddenStates } });
        for (const tensor of layer.tensors()) scope.own(tensor);
        const embedding = this.#embedding.backward(this.#contexts, hiddenStates);
        const parameters = new Map<string, ParameterGradient>();
        parameters.set(embeddingName, embedding);
        for (const [name, gradient] of layer.parameters) parameters.set(layerPrefix + name, gradient);
        parameters.set(headName, { layout: "dense", values: head.weight });
        return new Gradients(hiddenStates, parameters);
      },
      (gradients) => gradients.tensors(),
    );
  }

  /** Idempotent. */
  dispose(): void {
    this.logits.dispose();
    this.#layer.dispose();
    this.#contexts.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
