import { type Activation, activations, bytesPerElement, type DType } from "@flash-moe/core";

/** A buffer of this backend: a part of the linear memory. */
export interface WasmBuffer {
  readonly dtype: DType;
  readonly length: number;
  readonly address: number;
}

export function byteLengthOf({ dtype, length }: WasmBuffer): number {
  return length * bytesPerElement(dtype);
}

/** Where element `index` is. */
export function elementAddress({ dtype, address }: WasmBuffer, index: number): number {
  return address + index * bytesPerElement(dtype);
}

/** The number by which the kernels know a float dtype. */
export function dtypeNumber({ dtype }: WasmBuffer): number {
  return dtype === "f16" ? 1 : dtype === "bf16" ? 2 : 0;
}

/** The number by which the kernels know an activation. */
export function activationNumber(activation: Activation): number {
  return activations.indexOf(activation);
}
