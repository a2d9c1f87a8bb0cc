import type { Backend, DeviceBuffer } from "./backend.js";
import { bytesPerElement, type DType } from "./dtype.js";

/** Registered, so that a buffer of another copy of this package is known for what it is. */
const marker = Symbol.for("flash-moe.buffer");

/** The one implementation of `DeviceBuffer`: a handle, what it holds, and how it is given back. */
export class ManagedBuffer<H> implements DeviceBuffer {
  static {
    // Not on each buffer: that took as long as all else in making one.
    Object.defineProperty(ManagedBuffer.prototype, marker, { value: true });
  }

  readonly backend: Backend;
  readonly dtype: DType;
  readonly length: number;
  readonly label: string;
  readonly handle: H;
  readonly #release: () => void;
  #disposed = false;

  constructor(backend: Backend, dtype: DType, length: number, label: string, handle: H, release: () => void) {
    this.backend = backend;
    this.dtype = dtype;
    this.length = length;
    this.label = label;
    this.handle = handle;
    this.#release = release;
  }

  get byteLength(): number {
    return this.length * bytesPerElement(this.dtype);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** True for buffers of any backend, also when they come from another copy of the package. */
export function isManagedBuffer(value: unknown): value is ManagedBuffer<unknown> {
  return typeof value === "object" && value !== null && marker in value;
}
