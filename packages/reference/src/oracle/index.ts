export { type ActivationFunction, activationFunction } from "./activation.js";
export {
  type AdamwRange,
  type AdamwRows,
  type AdamwSettings,
  type AdamwState,
  adamwRange,
  adamwRows,
} from "./adamw.js";
export {
  type BatchNormBackwardParams,
  type BatchNormEvaluationParams,
  type BatchNormTrainingParams,
  type BatchNormTrainingResult,
  type BatchStatistics,
  type BatchStatisticsParams,
  batchNormBackward,
  batchNormEvaluationForward,
  batchNormTrainingForward,
  batchStatistics,
} from "./batch-norm.js";
export { erf, erfc } from "./erf.js";
export { type ExpertGroups, groupPairsByExpert } from "./expert-groups.js";
export {
  type CompactTableGradients,
  type ExpertsBackwardParams,
  type ExpertsBackwardResult,
  type ExpertsForwardParams,
  type ExpertsTableGradientParams,
  expertsBackward,
  expertsForward,
  expertsTableGradient,
  expertsTableGradients,
  type ReadRow,
  rowsOf,
} from "./experts.js";
export type { FloatArray } from "./float-array.js";
export { type MatmulShape, matmul } from "./matmul.js";
export {
  type MlpBackwardParams,
  type MlpBackwardResult,
  type MlpForwardParams,
  mlpBackward,
  mlpForward,
} from "./mlp.js";
export {
  createPairSelector,
  type PairSelectionShape,
  type PairSelector,
  selectPairs,
} from "./pair-selection.js";
export {
  type RouterSelectBackwardParams,
  type RouterSelectForwardParams,
  type RouterSelectForwardResult,
  type RouterShape,
  type RoutingWeightsParams,
  routerSelectBackward,
  routerSelectForward,
  routingWeights,
} from "./router-select.js";
