export { toConfigKeys } from "./config-keys.js";
export {
  type CheckpointFamily,
  type CheckpointTensor,
  familyOfNorm,
  type LayerTensorName,
} from "./layout.js";
export { type LayerCheckpoint, type ReadLayerOptions, readLayerCheckpoint } from "./read-layer-checkpoint.js";
export {
  encodeLayerCheckpoint,
  type LayerContents,
  layerEntries,
  layerMetadata,
  splitEntries,
  type WriteLayerOptions,
  writeLayerCheckpoint,
} from "./write-layer-checkpoint.js";
