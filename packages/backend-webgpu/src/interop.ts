import {
  adoptHandle,
  type Backend,
  bufferHandle,
  bytesPerElement,
  type DeviceBuffer,
  type DType,
  FlashMoeError,
} from "@flash-moe/core";
import { type DeviceMemory, type Part, splitRanges, wordBytes } from "./device-memory.js";
import type { GpuBuffer } from "./gpu-types.js";
import { memoryUsage } from "./transfers.js";

export interface WrapOptions {
  /** In bytes; a multiple of 256. Default 0. */
  readonly byteOffset?: number;
  /** For messages. */
  readonly label?: string;
}

/** A range of a GPUBuffer that holds elements of a buffer. */
export interface GpuRange {
  readonly buffer: GpuBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/**
 * A buffer around `length` elements of a GPUBuffer of the backend's own device, without a copy. Its bytes are not
 * counted, and disposing it leaves the GPUBuffer alone. Work of others that is to be seen must be submitted before.
 *
 * INVALID_ARGUMENT if the GPUBuffer is too short or was not made for STORAGE, COPY_SRC and COPY_DST. Elements of 16
 * bits come two to a word, so an odd number of them needs the rest of the last word too.
 */
export function wrapGpuBuffer(
  backend: Backend,
  buffer: GpuBuffer,
  dtype: DType,
  length: number,
  options: WrapOptions = {},
): DeviceBuffer {
  const { byteOffset = 0, label = buffer?.label } = options;
  // Of our own, to learn the queue; also refuses a backend that is not ours, disposed or lost.
  const probe = backend.alloc("f32", 0);
  const { queue } = handleOf(backend, probe);
  probe.dispose();
  if (typeof buffer?.usage !== "number" || typeof buffer.size !== "number") {
    throw new FlashMoeError("INVALID_ARGUMENT", `buffer is ${String(buffer)}; takes a GPUBuffer`);
  }
  if ((buffer.usage & memoryUsage) !== memoryUsage) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `buffer has usage ${buffer.usage}; takes one with STORAGE, COPY_SRC and COPY_DST`,
    );
  }
  if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset % 256 !== 0) {
    throw new FlashMoeError("INVALID_ARGUMENT", `byteOffset is ${byteOffset}; takes a multiple of 256`);
  }
  const bytes = wordBytes(dtype, length);
  if (byteOffset + bytes > buffer.size) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `buffer has ${buffer.size} bytes; ${length} ${dtype} from byte ${byteOffset} on take ${bytes}`,
    );
  }
  const parts = splitRanges(dtype, length, backend.capabilities.maxOperandBytes!).map(
    (range): Part => ({
      buffer,
      byteOffset: byteOffset + range.start * bytesPerElement(dtype),
      ...range,
    }),
  );
  const memory: DeviceMemory = { dtype, length, label, parts, queue };
  return adoptHandle(backend, memory, dtype, length, { label });
}

/**
 * The ranges of GPUBuffers behind a buffer, in order: one, or several where it is larger than the device binds at once.
 * All earlier calls are submitted first, so that work submitted after this sees their results; what is submitted before
 * the next call is seen by that.
 */
export function gpuRanges(backend: Backend, buffer: DeviceBuffer): GpuRange[] {
  const { dtype, parts, queue } = handleOf(backend, buffer);
  queue.flush();
  return parts.map((part) => ({
    buffer: part.buffer,
    byteOffset: part.byteOffset,
    byteLength: part.length * bytesPerElement(dtype),
  }));
}

function handleOf(backend: Backend, buffer: DeviceBuffer): DeviceMemory {
  if (backend.name !== "webgpu") {
    throw new FlashMoeError("INVALID_ARGUMENT", `backend is ${backend.name}; takes a webgpu backend`);
  }
  return bufferHandle<DeviceMemory>(backend, buffer);
}
