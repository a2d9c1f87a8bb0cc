// Everything that the host calls. Sizes and addresses are in elements and bytes of the linear memory; the host has
// validated every call, except for what only the data shows: ids are checked here, where they are used.

export { adamwDense, adamwRows, checkCount } from "./adamw";
export { batchNormBackward, batchNormForward, reciprocalDeviation } from "./batch-norm";
export { groupPairs, groupPairsScratchBytes } from "./expert-groups";
export { expertsBackward, expertsTableGradient } from "./experts-backward";
export { expertsForward, expertsScratchBytes, firstWrongId } from "./experts-forward";
export { linear, linearScratchBytes } from "./linear";
export { packedRowsBytes, packRows } from "./matmul";
export { clear, copy, decodeAll } from "./memory-steps";
export { mlpHidden, mlpScratchBytes } from "./mlp";
export { routerBackwardScratchBytes, routerSelectBackward } from "./router-backward";
export { routerSelect, routerSelectScratchBytes } from "./router-select";

/** Where the constants of the kernels end that the module itself puts into memory. */
export const dataEnd: usize = __heap_base;
