import { expectInteger } from "@flash-moe/core";
import { type FlashMoeConfig, type FlashMoeOptions, flashMoeConfig } from "../layer/config.js";

/** Everything that a byte language model is, except its weights. */
export interface LanguageModelConfig {
  /** How many bytes before the one to predict the model sees. */
  readonly window: number;
  /** The feed-forward. Its hidden size is the model's. */
  readonly layer: FlashMoeConfig;
}

/** What differs from the defaults. */
export interface LanguageModelOptions {
  readonly window?: number;
  readonly layer?: Partial<FlashMoeOptions>;
}

/** Values of a byte: rows of the output head, and embeddings per place in the window. */
export const byteValues: number = 256;

export const maxWindow: number = 4096;

/** Bytes that are predicted at once: more would fill the host with logits, a gigabyte by then. */
export const maxBatchSize: number = 2 ** 20;

/** The model of `npm start`; why these sizes is written in docs/decisions/language-model.md. */
const defaultWindow = 6;
const defaultLayer: FlashMoeOptions = {
  hiddenSize: 64,
  intermediateSize: 32,
  keysX: 128,
  keysY: 128,
  topK: 32,
  norm: "hidden",
  activation: "silu",
  normalizeWeights: true,
};

/** The whole configuration. INVALID_ARGUMENT if it contradicts itself. */
export function languageModelConfig(options: LanguageModelOptions = {}): LanguageModelConfig {
  const window = options.window ?? defaultWindow;
  expectInteger("window", window, 1, maxWindow);
  return Object.freeze({ window, layer: flashMoeConfig({ ...defaultLayer, ...options.layer }) });
}
