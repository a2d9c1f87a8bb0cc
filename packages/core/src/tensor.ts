import type { Backend, DeviceBuffer } from "./backend.js";
import { describe } from "./describe.js";
import { type DType, decode, type TypedArray } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import { isManagedBuffer } from "./managed-buffer.js";

/** The number of elements of a shape. INVALID_ARGUMENT unless every size is an integer >= 0 and the product is exact. */
export function elementCount(shape: readonly number[]): number {
  if (!Array.isArray(shape)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `shape is ${describe(shape)}; takes an array of sizes`);
  }
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `shape [${shape}] has the size ${size}; sizes are integers from 0`,
      );
    }
    count *= size;
  }
  if (!Number.isSafeInteger(count)) {
    throw new FlashMoeError("INVALID_ARGUMENT", `shape [${shape}] has more than 2^53 - 1 elements`);
  }
  return count;
}

/** What numbers of a dtype are read as. */
export type Elements<Type extends DType> = Type extends "i32" ? Int32Array : Float32Array;

/**
 * A device buffer with a shape: what models pass around. Owns its buffer. `Type` is what is known of its
 * dtype when the code is written.
 */
export class Tensor<Type extends DType = DType> implements Disposable {
  readonly buffer: DeviceBuffer;
  readonly shape: readonly number[];

  /** INVALID_ARGUMENT if the shape does not have as many elements as the buffer, or that is none. */
  constructor(buffer: DeviceBuffer, shape: readonly number[]) {
    if (!isManagedBuffer(buffer)) {
      throw new FlashMoeError("INVALID_ARGUMENT", `buffer is ${describe(buffer)}; takes what alloc returned`);
    }
    if (elementCount(shape) !== buffer.length) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `shape [${shape}] has ${elementCount(shape)} elements, its buffer has ${buffer.length}`,
      );
    }
    this.buffer = buffer;
    this.shape = [...shape];
  }

  get backend(): Backend {
    return this.buffer.backend;
  }

  get dtype(): Type {
    return this.buffer.dtype as Type;
  }

  get disposed(): boolean {
    return this.buffer.disposed;
  }

  /** The numbers: Int32Array for i32, else Float32Array (exact for f16 and bf16 too). */
  async read(): Promise<Elements<Type>> {
    return decode(await this.readRaw(), this.dtype) as Elements<Type>;
  }

  /** The elements as they are stored: raw bits in a Uint16Array for f16 and bf16. */
  readRaw(): Promise<TypedArray> {
    return this.backend.read(this.buffer);
  }

  /** Idempotent. */
  dispose(): void {
    this.buffer.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
