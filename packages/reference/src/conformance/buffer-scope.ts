import {
  type Backend,
  type DeviceBuffer,
  type DType,
  decode,
  encode,
  hostArray,
  type TypedArray,
} from "@flash-moe/core";
import type { HostFloats } from "./inputs.js";

/** What an output holds before an op writes it: if any of it is left, the op did not overwrite. */
const untouchedFloat = Number.NaN;
const untouchedInteger = -0x5a5a5a5a;

/** Makes buffers on one backend and disposes of them together. */
export class BufferScope {
  readonly backend: Backend;
  readonly #buffers: DeviceBuffer[] = [];

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** Disposes of `buffer` with the others. */
  keep(buffer: DeviceBuffer): DeviceBuffer {
    this.#buffers.push(buffer);
    return buffer;
  }

  alloc(dtype: DType, length: number, label?: string): DeviceBuffer {
    return this.keep(this.backend.alloc(dtype, length, { label }));
  }

  floats(host: HostFloats, label?: string): DeviceBuffer {
    return this.#filled(host.dtype, host.raw, label);
  }

  integers(values: Int32Array, label?: string): DeviceBuffer {
    return this.#filled("i32", values, label);
  }

  /** An output to be overwritten: filled with what no op writes. */
  output(dtype: DType, length: number, label?: string): DeviceBuffer {
    return this.#filled(dtype, untouched(dtype, length), label);
  }

  /** The stored elements: raw bits for f16 and bf16. */
  raw(buffer: DeviceBuffer): Promise<TypedArray> {
    return this.backend.read(buffer);
  }

  /** The numbers that a buffer holds. */
  async values(buffer: DeviceBuffer): Promise<Float32Array | Int32Array> {
    return decode(await this.backend.read(buffer), buffer.dtype);
  }

  dispose(): void {
    for (const buffer of this.#buffers.splice(0)) buffer.dispose();
  }

  #filled(dtype: DType, raw: TypedArray, label?: string): DeviceBuffer {
    const buffer = this.keep(this.backend.alloc(dtype, raw.length, { label, zeroed: false }));
    this.backend.write(buffer, raw);
    return buffer;
  }
}

function untouched(dtype: DType, length: number): TypedArray {
  if (dtype === "i32") return hostArray(dtype, length).fill(untouchedInteger);
  return hostArray(dtype, length).fill(encode([untouchedFloat], dtype)[0]);
}
