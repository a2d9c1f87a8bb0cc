import { type AbortSignalLike, expectInteger, FlashMoeError, SeededRandom } from "@flash-moe/core";
import { contextIds } from "./contexts.js";
import type { LanguageModel } from "./language-model.js";

export interface GenerateOptions {
  /** How many bytes to make. Default 400. */
  readonly bytes?: number;
  /** 0 always takes the likeliest byte; above 1 unlikely ones come more often. Default 0.8. */
  readonly temperature?: number;
  /** The same seed gives the same bytes. Default 0. */
  readonly seed?: number;
  /** Throws its reason. */
  readonly signal?: AbortSignalLike;
}

/**
 * Continues a prompt, byte by byte. The bytes are UTF-8 as far as the model has learnt it: a decoder in
 * stream mode shows them. INVALID_ARGUMENT for options out of range.
 */
export async function* generate(
  model: LanguageModel,
  prompt: Uint8Array,
  options: GenerateOptions = {},
): AsyncGenerator<number, void, void> {
  const { bytes = 400, temperature = 0.8, seed = 0, signal } = options;
  expectInteger("bytes", bytes, 0);
  if (!Number.isFinite(temperature) || temperature < 0) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `temperature is ${String(temperature)}; takes a number from 0`,
    );
  }
  const random = new SeededRandom(seed);
  const { window } = model.config;
  let seen = prompt.slice(-window);
  for (let made = 0; made < bytes; made++) {
    signal?.throwIfAborted();
    const logits = model.forward(contextIds(seen, [seen.length], window));
    let next: number;
    try {
      next = sample(await logits.read(), temperature, random);
    } finally {
      logits.dispose();
    }
    yield next;
    seen = Uint8Array.of(...seen, next).slice(-window);
  }
}

/** An index, with the probability softmax(logits / temperature); at 0 the first of the largest. */
function sample(logits: Float32Array, temperature: number, random: SeededRandom): number {
  let best = 0;
  for (let value = 1; value < logits.length; value++) if (logits[value] > logits[best]) best = value;
  if (!logits.every(Number.isFinite)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      "the model gives logits that are not finite; takes a model whose training did not diverge",
    );
  }
  if (temperature === 0) return best;
  const probabilities = Array.from(logits, (logit) => Math.exp((logit - logits[best]) / temperature));
  const total = probabilities.reduce((sum, probability) => sum + probability, 0);
  let left = random.uniform(0, total);
  for (let value = 0; value < probabilities.length; value++) {
    left -= probabilities[value];
    if (left < 0) return value;
  }
  // Rounding may leave a little behind the last one.
  return best;
}
