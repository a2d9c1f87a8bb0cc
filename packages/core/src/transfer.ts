import type { AbortSignalLike } from "./abort.js";
import type { Backend } from "./backend.js";
import { expectBackend } from "./backend-functions.js";
import { bytesPerElement, type DType } from "./dtype.js";
import { bufferOf } from "./expect-tensor.js";
import { Tensor } from "./tensor.js";

/** Bytes that are on the host at once during a transfer. */
const pieceBytes = 64 * 1024 * 1024;

/**
 * A copy of `tensor` on another backend (or the same), bit for bit, piece by piece through host memory.
 * `signal` rejects with its reason between pieces; the target is then freed. INVALID_ARGUMENT if `target` is no backend.
 */
export async function transfer<Type extends DType>(
  tensor: Tensor<Type>,
  target: Backend,
  options: { signal?: AbortSignalLike } = {},
): Promise<Tensor<Type>> {
  options.signal?.throwIfAborted();
  const buffer = bufferOf("tensor", tensor);
  expectBackend(target);
  const { backend, dtype } = tensor;
  const copy = target.alloc(dtype, buffer.length, { label: buffer.label, zeroed: false });
  try {
    const step = pieceBytes / bytesPerElement(dtype);
    // An empty tensor is read too: it may be disposed, or its device lost.
    for (let offset = 0; offset === 0 || offset < buffer.length; offset += step) {
      const piece = await backend.read(buffer, offset, Math.min(step, buffer.length - offset));
      options.signal?.throwIfAborted();
      target.write(copy, piece, offset);
    }
    await target.sync();
  } catch (error) {
    copy.dispose();
    throw error;
  }
  return new Tensor(copy, tensor.shape);
}
