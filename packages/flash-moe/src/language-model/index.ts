export { loadLanguageModel, saveLanguageModel } from "./checkpoint.js";
export { evaluate } from "./evaluate.js";
export { generate } from "./generate.js";
export { LanguageModel } from "./language-model.js";
