import { FlashMoeError } from "./errors.js";
import { bf16ToFloat32, f16ToFloat32, float32ToBf16, float32ToF16 } from "./half.js";

/** Element type of a buffer. `i32` holds expert ids and counts, nothing else. */
export type DType = "f32" | "f16" | "bf16" | "i32";

/** The dtypes that hidden states and weights may be stored in. */
export type FloatDType = Exclude<DType, "i32">;

/** What travels between host and device: f16 and bf16 as their raw bits. */
export type TypedArray = Float32Array | Int32Array | Uint16Array;

/** All dtypes, in the order in which they are listed to people. */
export const dtypes: readonly DType[] = ["f32", "f16", "bf16", "i32"];

/** The storage dtypes, in the order in which they are listed to people. */
export const floatDTypes: readonly FloatDType[] = ["f32", "f16", "bf16"];

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): 2 | 4 {
  return dtype === "f16" || dtype === "bf16" ? 2 : 4;
}

/** A zeroed host array that can hold `length` elements of `dtype` (raw bits for f16 and bf16). */
export function hostArray(dtype: DType, length: number): TypedArray {
  if (dtype === "f32") return new Float32Array(length);
  if (dtype === "i32") return new Int32Array(length);
  return new Uint16Array(length);
}

/** True if `data` is the host array type that belongs to `dtype`. */
export function matchesDType(data: TypedArray, dtype: DType): boolean {
  if (dtype === "f32") return data instanceof Float32Array;
  if (dtype === "i32") return data instanceof Int32Array;
  return data instanceof Uint16Array;
}

/**
 * Rounds numbers to `dtype` (nearest, ties to even) and returns the array that holds them, raw bits
 * for f16 and bf16. Numbers for `i32` must be integers in its range: INVALID_ARGUMENT.
 */
export function encode(values: ArrayLike<number>, dtype: DType): TypedArray {
  const out = hostArray(dtype, values.length);
  if (dtype === "f32") {
    for (let i = 0; i < values.length; i++) out[i] = values[i];
  } else if (dtype === "f16") {
    for (let i = 0; i < values.length; i++) out[i] = float32ToF16(values[i]);
  } else if (dtype === "bf16") {
    for (let i = 0; i < values.length; i++) out[i] = float32ToBf16(values[i]);
  } else {
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (value !== (value | 0)) {
        throw new FlashMoeError(
          "INVALID_ARGUMENT",
          `values[${i}] is ${value}; i32 takes integers of 32 bits`,
        );
      }
      out[i] = value;
    }
  }
  return out;
}

/** The numbers that raw data stands for, exactly: f32, f16 and bf16 as Float32Array, i32 as Int32Array. */
export function decode(data: TypedArray, dtype: DType): Float32Array | Int32Array {
  if (dtype === "f16" || dtype === "bf16") {
    const toFloat = dtype === "f16" ? f16ToFloat32 : bf16ToFloat32;
    const out = new Float32Array(data.length);
    for (let i = 0; i < data.length; i++) out[i] = toFloat(data[i]);
    return out;
  }
  return data as Float32Array | Int32Array;
}
