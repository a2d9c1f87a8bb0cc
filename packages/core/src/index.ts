export type { AbortSignalLike } from "./abort.js";
export { type Activation, activations } from "./activation.js";
export type {
  AllocOptions,
  Backend,
  BackendProvider,
  Capabilities,
  DeviceBuffer,
  DeviceLoss,
  DTypeUse,
  KernelTime,
  MemoryReport,
  ProbeResult,
} from "./backend.js";
export {
  adoptHandle,
  bufferHandle,
  expectBackend,
  forceLoss,
  prepareWork,
  timeKernels,
  together,
} from "./backend-functions.js";
export { countTokens } from "./count-tokens.js";
export { defineBackend } from "./define-backend.js";
export {
  bytesPerElement,
  type DType,
  decode,
  dtypes,
  encode,
  type FloatDType,
  floatDTypes,
  hostArray,
  matchesDType,
  type TypedArray,
} from "./dtype.js";
export { type ErrorCode, FlashMoeError } from "./errors.js";
export { expectInteger, expectOneOf } from "./expect.js";
export { bufferOf, expectTensor, isTensor } from "./expect-tensor.js";
export { giveWay, immediateTurn } from "./give-way.js";
export { type AddTo, checkAddTo, denseTarget, Gradients, type ParameterGradient } from "./gradients.js";
export { bf16ToFloat32, f16ToFloat32, float32ToBf16, float32ToF16 } from "./half.js";
export { type HostEnvironment, hostMemoryLimitBytes } from "./host-memory.js";
export type { BackendDescription, BackendImplementation, BackendRuntime } from "./implementation.js";
export { initializeTensor } from "./initialize.js";
export type { LongJobOptions, Progress } from "./long-job.js";
export { MemoryBudget } from "./memory-budget.js";
export { Module, moveSlots, TensorSlot } from "./module.js";
export { cloneTensor, newTensor } from "./new-tensor.js";
export {
  type AdamwCall,
  type BatchNormBackwardCall,
  type BatchNormEvaluationCall,
  type BatchNormForwardCall,
  type BatchNormTrainingCall,
  type ExpertsBackwardCall,
  type ExpertsForwardCall,
  type LinearCall,
  type MlpBackwardCall,
  type MlpForwardCall,
  type NormStatistics,
  type OpCalls,
  type OpName,
  type Ops,
  opNames,
  type RouterSelectBackwardCall,
  type RouterSelectForwardCall,
  type TableGradients,
} from "./ops.js";
export { checkOptions, type OptionRule, takes } from "./options.js";
export type { Parameter } from "./parameter.js";
export { SeededRandom } from "./random.js";
export { Scope, withScope } from "./scope.js";
export { type Elements, elementCount, Tensor } from "./tensor.js";
export { transfer } from "./transfer.js";
