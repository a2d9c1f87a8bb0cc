import { type DType, hostArray, type TypedArray } from "@flash-moe/core";

/** A buffer of this backend: host memory, f16 and bf16 as their raw bits. */
export interface Storage {
  readonly dtype: DType;
  /** Replaced by an empty array when the buffer is freed, so that a forgotten handle holds nothing. */
  data: TypedArray;
}

/** A zeroed buffer. */
export function createStorage(dtype: DType, length: number): Storage {
  return { dtype, data: hostArray(dtype, length) };
}

export function freeStorage(storage: Storage): void {
  storage.data = hostArray(storage.dtype, 0);
}

/** The elements of an f32 buffer themselves, not a copy. */
export function float32Data(storage: Storage): Float32Array {
  return storage.data as Float32Array;
}

/** The elements of an i32 buffer themselves, not a copy. */
export function int32Data(storage: Storage): Int32Array {
  return storage.data as Int32Array;
}
