export {
  type BackendAttempt,
  builtInBackends,
  type OpenBackendOptions,
  openBackend,
  probeBackends,
} from "./backends/open-backend.js";
export { type FlashMoeConfig, type FlashMoeOptions, flashMoeConfig } from "./layer/config.js";
export { estimateMemory, type MemoryEstimate, type MemoryEstimateOptions } from "./layer/estimate-memory.js";
export { type CreateOptions, FlashMoE } from "./layer/flash-moe.js";
export type { BackwardOptions, FlashMoeRecording } from "./layer/recording.js";
