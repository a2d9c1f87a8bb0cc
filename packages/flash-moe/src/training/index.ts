export { AdamW, type AdamWOptions, type ParameterSettings, type StepOptions } from "./adamw.js";
export { heldOutStart } from "./held-out.js";
export { type TrainStep, train, trainDefaults } from "./train.js";
