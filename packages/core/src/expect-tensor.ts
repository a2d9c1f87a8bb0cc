import type { Backend, DeviceBuffer } from "./backend.js";
import { describe } from "./describe.js";
import type { DType } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import { isManagedBuffer } from "./managed-buffer.js";
import type { Tensor } from "./tensor.js";

/** True for tensors, also when they come from another copy of the package. */
export function isTensor(value: unknown): value is Tensor {
  if (typeof value !== "object" || value === null) return false;
  const { buffer, shape } = value as Partial<Tensor>;
  return isManagedBuffer(buffer) && Array.isArray(shape);
}

/** The buffer of a tensor, for a call; INVALID_ARGUMENT if it is none. */
export function bufferOf(name: string, tensor: Tensor): DeviceBuffer {
  if (isTensor(tensor)) return tensor.buffer;
  throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${describe(tensor)}; takes a tensor`);
}

/**
 * The tensor, if it has this shape and one of these dtypes, INVALID_ARGUMENT else; and if it is alive, DISPOSED else.
 * With `backend` it must live there: FOREIGN_BUFFER else.
 */
export function expectTensor<Type extends DType>(
  name: string,
  tensor: Tensor,
  shape: readonly number[],
  accepted: readonly Type[],
  backend?: Backend,
): Tensor<Type> {
  const buffer = bufferOf(name, tensor);
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} has the shape [${tensor.shape}]; takes [${shape}]`);
  }
  if (!accepted.includes(tensor.dtype as Type)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${tensor.dtype}; takes ${accepted.join(", ")}`);
  }
  if (backend !== undefined && tensor.backend !== backend) {
    throw new FlashMoeError(
      "FOREIGN_BUFFER",
      `${name} is on another backend (${tensor.backend.name}) than what goes with it (${backend.name})`,
    );
  }
  if (buffer.disposed) throw new FlashMoeError("DISPOSED", `${name} has been disposed`);
  return tensor as Tensor<Type>;
}
