export type { ExpectedTime } from "./addon.js";
export type { CudaOptions } from "./options.js";
export { cuda } from "./provider.js";
export { deviceMilliseconds, deviceSizes, expectedTimes, tune } from "./timing.js";
