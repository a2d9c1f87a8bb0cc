export {
  type Activation,
  type AddTo,
  type Backend,
  type BackendProvider,
  type ErrorCode,
  FlashMoeError,
  type FloatDType,
  Gradients,
  type LongJobOptions,
  type MemoryReport,
  type Parameter,
  type ParameterGradient,
  type Progress,
  Tensor,
} from "@flash-moe/core";
export { ExpertUsage, type ExpertUsageReport, type RouterNorm, type Routing } from "@flash-moe/router";
export {
  type BackendAttempt,
  type BackendOptions,
  builtInBackends,
  type OpenBackendOptions,
  openBackend,
  probeBackends,
} from "./backends/open-backend.js";
export {
  type CheckpointFamily,
  encodeLayerCheckpoint,
  type LayerCheckpoint,
  type LayerContents,
  type ReadLayerOptions,
  readLayerCheckpoint,
  type WriteLayerOptions,
  writeLayerCheckpoint,
} from "./checkpoint/index.js";
export { type FlashMoeConfig, type FlashMoeOptions, flashMoeConfig } from "./layer/config.js";
export { estimateMemory, type MemoryEstimate, type MemoryEstimateOptions } from "./layer/estimate-memory.js";
export { type CreateOptions, FlashMoE, type LoadOptions, type SaveOptions } from "./layer/flash-moe.js";
export type { BackwardOptions, FlashMoeRecording } from "./layer/recording.js";
export type { WarmupOptions } from "./layer/warmup.js";
export {
  type BlobLike,
  type ByteSource,
  type ByteSourceLike,
  deviceEntry,
  encodeSafetensors,
  hostEntry,
  openSafetensors,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsFile,
  type TensorInfo,
  type UploadOptions,
  uploadFromFile,
  type WriteSafetensorsOptions,
  writeSafetensors,
} from "./safetensors/index.js";
export {
  AdamW,
  type AdamWOptions,
  type ParameterSettings,
  type StepOptions,
} from "./training/index.js";
