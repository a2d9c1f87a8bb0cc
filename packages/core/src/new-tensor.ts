import type { Backend } from "./backend.js";
import type { DType } from "./dtype.js";
import { elementCount, Tensor } from "./tensor.js";

/** A tensor whose contents are unspecified until an op writes all of it. */
export function newTensor<Type extends DType = "f32">(
  backend: Backend,
  shape: readonly number[],
  dtype?: Type,
  label = "",
): Tensor<Type> {
  return new Tensor(backend.alloc(dtype ?? "f32", elementCount(shape), { label, zeroed: false }), shape);
}

/** A new tensor with the contents that `source` has now. */
export function cloneTensor<Type extends DType>(source: Tensor<Type>): Tensor<Type> {
  const clone = newTensor(source.backend, source.shape, source.dtype, source.buffer.label);
  try {
    source.backend.copy(source.buffer, clone.buffer);
  } catch (error) {
    clone.dispose();
    throw error;
  }
  return clone;
}
