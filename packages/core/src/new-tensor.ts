import type { Backend } from "./backend.js";
import type { DType } from "./dtype.js";
import { elementCount, Tensor } from "./tensor.js";

/** A tensor whose contents are unspecified until an op writes all of it. */
export function newTensor(
  backend: Backend,
  shape: readonly number[],
  dtype: DType = "f32",
  label = "",
): Tensor {
  return new Tensor(backend.alloc(dtype, elementCount(shape), { label, zeroed: false }), shape);
}

/** A new tensor with the contents that `source` has now. */
export function cloneTensor(source: Tensor): Tensor {
  const clone = newTensor(source.backend, source.shape, source.dtype, source.buffer.label);
  try {
    source.backend.copy(source.buffer, clone.buffer);
  } catch (error) {
    clone.dispose();
    throw error;
  }
  return clone;
}
