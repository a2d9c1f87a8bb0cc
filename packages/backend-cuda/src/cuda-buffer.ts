import { bytesPerElement, type DType } from "@flash-moe/core";

/** Memory on the device: what a buffer is inside this backend. */
export interface CudaBuffer {
  readonly dtype: DType;
  /** In elements. */
  readonly length: number;
  /** On the device, below 2^53; 0 where there is no element. */
  readonly address: number;
}

export function byteLengthOf(buffer: CudaBuffer): number {
  return buffer.length * bytesPerElement(buffer.dtype);
}

export function elementAddress(buffer: CudaBuffer, index: number): number {
  return buffer.address + index * bytesPerElement(buffer.dtype);
}
