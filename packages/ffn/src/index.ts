export {
  AtomicExperts,
  type AtomicExpertsConfig,
  type AtomicExpertsState,
  type ExpertsBackwardOptions,
  ExpertsGradients,
  type ForwardOptions,
  validateAtomicExpertsConfig,
} from "./atomic-experts.js";
export { estimateExpertsMemory, estimateMlpMemory } from "./estimate-memory.js";
export type { TableLayout } from "./expect.js";
export type { ExpertRouting } from "./expert-routing.js";
export {
  SharedMlp,
  type SharedMlpConfig,
  type SharedMlpState,
  validateSharedMlpConfig,
} from "./shared-mlp.js";
export { SparseFfn } from "./sparse-ffn.js";
