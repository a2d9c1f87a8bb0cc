import { bytesPerElement, type DType, FlashMoeError, type TypedArray } from "@flash-moe/core";
import type { Binding, DeviceMemory, Part } from "./device-memory.js";
import { bindingOf, splitRanges, wordBytes } from "./device-memory.js";
import type { ErrorScopes } from "./error-scopes.js";
import { GPU_BUFFER_USAGE } from "./gpu-constants.js";
import type { Device } from "./live-context.js";

/** What a buffer must be usable for, to be one of ours. */
export const memoryUsage: number =
  GPU_BUFFER_USAGE.STORAGE | GPU_BUFFER_USAGE.COPY_SRC | GPU_BUFFER_USAGE.COPY_DST;

/** A buffer of zeros, in as many GPUBuffers as one binding each can take. */
export function createMemory(
  device: Device,
  scopes: ErrorScopes,
  dtype: DType,
  length: number,
  label: string,
  partBytes: number,
): DeviceMemory {
  const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
  const parts: Part[] = [];
  try {
    for (const range of splitRanges(dtype, length, partBytes)) {
      const size = wordBytes(dtype, range.length);
      const buffer = scopes.watch(`allocating ${what}`, ["out-of-memory", "validation"], () =>
        device.queue.device.createBuffer({ label, size, usage: memoryUsage }),
      );
      parts.push({ buffer, byteOffset: 0, ...range });
    }
  } catch (error) {
    for (const { buffer } of parts) buffer.destroy();
    const bytes = length * bytesPerElement(dtype);
    throw FlashMoeError.from(
      error,
      "OUT_OF_MEMORY",
      `${what} needs ${bytes} bytes, which the device refused`,
    );
  }
  return { dtype, length, label, parts, queue: device.queue };
}

/** The overlap of a part with the elements from `from` to `to`, in elements of the whole. */
function overlap(part: Part, from: number, to: number): [low: number, high: number] {
  return [Math.max(part.start, from), Math.min(part.start + part.length, to)];
}

/** Host data into `memory` from element `offset` on. */
export function writeMemory(
  device: Device,
  memory: DeviceMemory,
  data: TypedArray,
  offset: number,
  writeWord: (target: Binding, word: number, mask: number, bits: number) => void,
): void {
  const size = bytesPerElement(memory.dtype);
  for (const part of memory.parts) {
    let [low, high] = overlap(part, offset, offset + data.length);
    if (low >= high) continue;
    const at = (element: number): number => part.byteOffset + (element - part.start) * size;
    if (size === 2) {
      if (low % 2 === 1) {
        writeWord(bindingOf(memory, part), (low - part.start - 1) / 2, 0xffff0000, data[low - offset] << 16);
        low += 1;
      }
      if (high % 2 === 1 && low < high) {
        high -= 1;
        const bits = data[high - offset];
        if (high + 1 === memory.length) {
          // Nothing lies in the other half.
          device.queue.write(part.buffer, at(high), Uint32Array.of(bits));
        } else {
          writeWord(bindingOf(memory, part), (high - part.start) / 2, 0xffff, bits);
        }
      }
    }
    if (low < high) {
      const piece = data.subarray(low - offset, high - offset);
      device.queue.write(part.buffer, at(low), piece as ArrayBufferView<ArrayBuffer>);
    }
  }
}

/** Enqueues the copy of elements to `staging`, in whole words. */
export function copyToStaging(
  device: Device,
  memory: DeviceMemory,
  offset: number,
  length: number,
  staging: GPUBuffer,
): void {
  const size = bytesPerElement(memory.dtype);
  const perWord = 4 / size;
  const first = offset - (offset % perWord);
  for (const part of memory.parts) {
    const [low, high] = overlap(part, first, offset + length);
    if (low >= high) continue;
    const source = {
      buffer: part.buffer,
      offset: part.byteOffset + (low - part.start) * size,
      size: wordBytes(memory.dtype, high - low),
    };
    device.queue.copy(source, staging, (low - first) * size);
  }
}

/** All of `source` over `target`; they may be cut at different places. */
export function copyMemory(device: Device, source: DeviceMemory, target: DeviceMemory): void {
  const size = bytesPerElement(source.dtype);
  for (const from of source.parts) {
    for (const to of target.parts) {
      const [low, high] = overlap(to, from.start, from.start + from.length);
      if (low >= high) continue;
      const range = {
        buffer: from.buffer,
        offset: from.byteOffset + (low - from.start) * size,
        size: wordBytes(source.dtype, high - low),
      };
      device.queue.copy(range, to.buffer, to.byteOffset + (low - to.start) * size);
    }
  }
}
