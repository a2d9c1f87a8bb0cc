export { type GpuRange, gpuRanges, type WrapOptions, wrapGpuBuffer } from "./interop.js";
export type { WebGpuOptions } from "./options.js";
export { webgpu } from "./provider.js";
