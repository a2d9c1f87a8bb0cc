export type { CudaOptions } from "./options.js";
export { cuda } from "./provider.js";
export { deviceMilliseconds } from "./timing.js";
