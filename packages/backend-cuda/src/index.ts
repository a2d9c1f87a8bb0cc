export type { KernelTime } from "./addon.js";
export type { CudaOptions } from "./options.js";
export { cuda } from "./provider.js";
export { deviceMilliseconds, kernelTimes } from "./timing.js";
