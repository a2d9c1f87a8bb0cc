import type { DType } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import type { Tensor } from "./tensor.js";

/** The tensor, if it has this shape and one of these dtypes; INVALID_ARGUMENT else. */
export function expectTensor<Type extends DType>(
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  accepted: readonly Type[],
): Tensor<Type> {
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} has the shape [${tensor.shape}]; takes [${shape}]`);
  }
  if (!accepted.includes(tensor.dtype as Type)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${tensor.dtype}; takes ${accepted.join(", ")}`);
  }
  return tensor as Tensor<Type>;
}
