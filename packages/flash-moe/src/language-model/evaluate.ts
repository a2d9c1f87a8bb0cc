import { type AbortSignalLike, expectInteger, FlashMoeError } from "@flash-moe/core";
import { maxBatchSize } from "./config.js";
import { contextIds } from "./contexts.js";
import { crossEntropyBits } from "./cross-entropy.js";
import type { LanguageModel } from "./language-model.js";

export interface EvaluateOptions {
  /** The first byte to predict; those before it are only seen. Default 0. */
  readonly start?: number;
  /** Behind the last byte to predict. Default the end of the text. */
  readonly end?: number;
  /** Bytes that are predicted at once. The loss depends on it by rounding alone. At most 2^20, default 1,024. */
  readonly batchSize?: number;
  /** Rejects with its reason. */
  readonly signal?: AbortSignalLike;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Bits per byte that the model needs for a part of a text: the mean over its bytes of -log2 of their
 * probability, with the running statistics. INVALID_ARGUMENT for a part without a byte.
 */
export async function evaluate(
  model: LanguageModel,
  text: Uint8Array,
  options: EvaluateOptions = {},
): Promise<number> {
  const { start = 0, end = text.length, batchSize = 1024, signal, onProgress } = options;
  for (const [name, value] of Object.entries({ start, end })) {
    if (!Number.isInteger(value) || value < 0 || value > text.length) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${name} is ${String(value)}; takes an integer from 0 to ${text.length}, the length of the text`,
      );
    }
  }
  if (start >= end) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `start is ${start} and end ${end}; takes a part of the text with at least one byte`,
    );
  }
  expectInteger("batchSize", batchSize, 1, maxBatchSize);
  let bits = 0;
  for (let at = start; at < end; at += batchSize) {
    signal?.throwIfAborted();
    const targets = text.subarray(at, Math.min(at + batchSize, end));
    const positions = Array.from(targets, (_, offset) => at + offset);
    const logits = model.forward(contextIds(text, positions, model.config.window));
    try {
      bits += crossEntropyBits(await logits.read(), targets);
    } finally {
      logits.dispose();
    }
    onProgress?.(at + targets.length - start, end - start);
  }
  signal?.throwIfAborted();
  return bits / (end - start);
}
