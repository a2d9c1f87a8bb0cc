import type { Backend } from "./backend.js";
import { expectBackend } from "./backend-functions.js";
import { encode, type FloatDType } from "./dtype.js";
import type { LongJobOptions } from "./long-job.js";
import { elementCount, Tensor } from "./tensor.js";

/** Elements that are made on the host at once: a few milliseconds, for a page draws meanwhile. */
const pieceLength = 1 << 17;

/**
 * A new tensor filled by `next`, element by element, piece by piece; the device catches up between
 * pieces, so that host memory stays small however large the table is.
 */
export async function initializeTensor(
  backend: Backend,
  name: string,
  shape: readonly number[],
  dtype: FloatDType,
  next: () => number,
  options: LongJobOptions = {},
): Promise<Tensor<FloatDType>> {
  expectBackend(backend);
  const length = elementCount(shape);
  options.signal?.throwIfAborted();
  const buffer = backend.alloc(dtype, length, { label: name, zeroed: false });
  try {
    const bytes = buffer.byteLength / Math.max(1, length);
    for (let offset = 0; offset < length; offset += pieceLength) {
      const values = new Float32Array(Math.min(pieceLength, length - offset));
      for (let i = 0; i < values.length; i++) values[i] = next();
      backend.write(buffer, encode(values, dtype), offset);
      await backend.sync();
      options.signal?.throwIfAborted();
      const loaded = (offset + values.length) * bytes;
      options.onProgress?.({ phase: "initialize", name, loaded, total: length * bytes });
    }
  } catch (error) {
    buffer.dispose();
    throw error;
  }
  return new Tensor(buffer, shape);
}
