// Everything that the host calls. Sizes and addresses are in elements and bytes of the linear memory; the host has
// validated every call, except for what only the data shows: ids are checked here, where they are used.

export { adamw } from "./adamw";
export { batchNormBackward, batchStatistics, normalize, reciprocalDeviation } from "./batch-norm";
export { convert } from "./convert";
export { groupPairs, groupPairsScratchBytes } from "./expert-groups";
export { expertsBackward, expertsTableGradient } from "./experts-backward";
export { expertsForward, expertsScratchBytes, firstWrongId } from "./experts-forward";
export { matmul, matmulScratchBytes } from "./matmul";
export { mlpGate, mlpGateBackward } from "./mlp";
export { routerBackwardScratchBytes, routerSelectBackward } from "./router-backward";
export { routerSelect, routerSelectScratchBytes } from "./router-select";
