import { contextIds, type LanguageModel } from "flash-moe/language-model";
import type { RoutedText } from "../remote/protocol.js";

/**
 * Which experts the model's layer picks after each byte of a text: what it has read then are the bytes up to and
 * including that one.
 */
export async function routeText(model: LanguageModel, bytes: Uint8Array): Promise<Omit<RoutedText, "steps">> {
  const { keysX, keysY, topK } = model.config.layer;
  const behind = Array.from(bytes, (_, index) => index + 1);
  const recording = model.record(contextIds(bytes, behind, model.config.window), { training: false });
  try {
    const { routing } = recording;
    const [ids, weights, logits] = await Promise.all([
      routing.ids.read(),
      routing.weights.read(),
      routing.logits.read(),
    ]);
    return { keysX, keysY, topK, bytes, ids, weights, logits };
  } finally {
    recording.dispose();
  }
}
