import { type Backend, decode, encode, type FloatDType, type Tensor } from "@flash-moe/core";
import { createRandom, normals } from "../oracle/random.js";

/** A tensor and, in float64, exactly the numbers that it holds. */
export interface Upload {
  tensor: Tensor;
  values: Float64Array;
}

/** `values`, rounded to `dtype`, on the backend. */
export function upload(backend: Backend, values: ArrayLike<number>, dtype: FloatDType = "f32"): Upload {
  const raw = encode(values, dtype);
  return {
    tensor: backend.upload(raw, [values.length], dtype),
    values: Float64Array.from(decode(raw, dtype)),
  };
}

/** A source of uploads of normal numbers, the same for the same seed. */
export function normalUploads(
  backend: Backend,
  seed: number,
): (length: number, dtype?: FloatDType, scale?: number) => Upload {
  const random = createRandom(seed);
  return (length, dtype = "f32", scale = 1) => upload(backend, normals(random, length, scale), dtype);
}

/** An output that holds garbage, so that an element which is not written shows. */
export function garbage(backend: Backend, length: number, dtype: FloatDType = "f32"): Tensor {
  return backend.upload(new Float32Array(length).fill(-77), [length], dtype);
}
