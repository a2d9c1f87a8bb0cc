export type { BlobLike, ByteSource, ByteSourceLike } from "./byte-source.js";
export { deviceEntry, hostEntry, type UploadOptions, uploadFromFile } from "./device-tensors.js";
export {
  type SafetensorsDType,
  safetensorsDTypes,
} from "./format.js";
export { openSafetensors, type SafetensorsFile, type TensorInfo } from "./safetensors-file.js";
export { checkWritable } from "./write-beside.js";
export type { SafetensorsEntry, WritableDType } from "./write-header.js";
export { encodeSafetensors, type WriteSafetensorsOptions, writeSafetensors } from "./write-safetensors.js";
