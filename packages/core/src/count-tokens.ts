import type { Backend } from "./backend.js";
import type { DType } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import { bufferOf } from "./expect-tensor.js";
import type { Tensor } from "./tensor.js";

/**
 * The number of tokens in hidden states of shape [..., H]: the product of the leading sizes.
 * INVALID_ARGUMENT for no tensor, another last size or dtype, FOREIGN_BUFFER for another backend.
 */
export function countTokens(
  name: string,
  tensor: Tensor,
  expected: { readonly backend: Backend; readonly hiddenSize: number; readonly dtype: DType },
): number {
  const { length } = bufferOf(name, tensor);
  const { shape, dtype } = tensor;
  if (shape.length < 1 || shape[shape.length - 1] !== expected.hiddenSize) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${name} has the shape [${shape}]; takes [..., hiddenSize] with hiddenSize ${expected.hiddenSize}`,
    );
  }
  if (dtype !== expected.dtype) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${name} is ${dtype}; takes ${expected.dtype}, the dtype of the weights`,
    );
  }
  if (tensor.backend !== expected.backend) {
    throw new FlashMoeError(
      "FOREIGN_BUFFER",
      `${name} is on another backend (${tensor.backend.name}) than the weights (${expected.backend.name})`,
    );
  }
  return length / expected.hiddenSize;
}
