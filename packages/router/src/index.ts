export { CartesianRouter, type RouterState } from "./cartesian-router.js";
export {
  normEpsilon,
  normFeatures,
  normMomentum,
  type RouterConfig,
  type RouterNorm,
  routerNorms,
  validateRouterConfig,
} from "./config.js";
export { estimateRouterMemory, type RouterMemoryEstimate } from "./estimate-memory.js";
export { ExpertUsage, type ExpertUsageReport } from "./expert-usage.js";
export type { RunningStatistics } from "./norm-statistics.js";
export type { RouterOutputGradients, RouterRecording } from "./router-recording.js";
export type { Routing } from "./routing.js";
