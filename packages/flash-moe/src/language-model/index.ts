/**
 * The byte language model of `npm start` and of the browser example: what a FlashMoE layer does inside a
 * model, from a text to bytes that continue a prompt.
 *
 *     import { generate, LanguageModel, train } from "flash-moe/language-model";
 *
 *     const model = await LanguageModel.create(backend);
 *     for await (const { step, lossBits } of train(model, text, { steps: 500 })) console.log(step, lossBits);
 *     for await (const byte of generate(model, prompt)) ...
 */
export { heldOutStart } from "../training/held-out.js";
export { type TrainOptions, type TrainStep, train, trainDefaults } from "../training/train.js";
export {
  encodeLanguageModel,
  type LoadedLanguageModel,
  type LoadLanguageModelOptions,
  loadLanguageModel,
  type SaveLanguageModelOptions,
  saveLanguageModel,
  type TrainingRecord,
} from "./checkpoint.js";
export { type LanguageModelConfig, type LanguageModelOptions, languageModelConfig } from "./config.js";
export { contextIds } from "./contexts.js";
export { type EvaluateOptions, evaluate } from "./evaluate.js";
export { type GenerateOptions, generate } from "./generate.js";
export { LanguageModel, type LanguageModelRecording } from "./language-model.js";
