import type { Backend } from "@flash-moe/core";
import type { LanguageModelOptions } from "../../src/language-model/config.js";
import { LanguageModel } from "../../src/language-model/language-model.js";

const tinyOptions: LanguageModelOptions = {
  window: 3,
  layer: { hiddenSize: 16, intermediateSize: 8, keysX: 4, keysY: 5, topK: 6 },
};

/** Text that three bytes say nearly everything about. */
export const tinyText: Uint8Array = new TextEncoder().encode(
  "the cat sat on the mat, and the rat sat on the cat. ".repeat(8),
);

export function tinyModel(backend: Backend, seed = 1): Promise<LanguageModel> {
  return LanguageModel.create(backend, tinyOptions, { seed });
}

/** Every bit of a model's weights and statistics, by name. */
export async function weightsOf(model: LanguageModel): Promise<Record<string, unknown>> {
  const weights: Record<string, unknown> = {};
  for (const { name, tensor } of model.slots()) weights[name] = await tensor.readRaw();
  return weights;
}
