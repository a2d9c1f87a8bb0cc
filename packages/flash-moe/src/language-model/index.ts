export {
  type LoadedLanguageModel,
  type LoadLanguageModelOptions,
  loadLanguageModel,
  saveLanguageModel,
  type TrainingRecord,
} from "./checkpoint.js";
export { type LanguageModelConfig, type LanguageModelOptions, languageModelConfig } from "./config.js";
export { type EvaluateOptions, evaluate } from "./evaluate.js";
export { type GenerateOptions, generate } from "./generate.js";
export { LanguageModel } from "./language-model.js";
