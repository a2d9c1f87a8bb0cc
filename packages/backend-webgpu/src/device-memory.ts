import { bytesPerElement, type DType } from "@flash-moe/core";
import type { CommandQueue } from "./command-queue.js";

/** A run of a buffer's elements inside one GPUBuffer. */
export interface Part {
  readonly buffer: GPUBuffer;
  /** Where the run begins in the GPUBuffer; a multiple of 256. */
  readonly byteOffset: number;
  /** In elements of the whole. */
  readonly start: number;
  readonly length: number;
}

/**
 * The handle of a buffer: its elements, in order, in one GPUBuffer or, past what one binding takes, in several.
 * Two elements of 16 bits share a word; a part holds an even number of them, the last one may end with half a word.
 */
export interface DeviceMemory {
  readonly dtype: DType;
  readonly length: number;
  readonly label: string;
  readonly parts: readonly Part[];
  readonly queue: CommandQueue;
}

/** What a binding takes: a range of a GPUBuffer. */
export interface Binding {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Bytes of `length` elements, in whole words. */
export function wordBytes(dtype: DType, length: number): number {
  return Math.ceil((length * bytesPerElement(dtype)) / 4) * 4;
}

/** The range of a part as a binding. */
export function bindingOf(memory: DeviceMemory, part: Part): Binding {
  return { buffer: part.buffer, offset: part.byteOffset, size: wordBytes(memory.dtype, part.length) };
}

/**
 * Where each part begins, and its elements, when a buffer may have `limitBytes` at most. All but the last are multiples of 512 bytes: cut
 * where an f32 buffer is cut, a 16-bit one is then still cut at multiples of 256.
 */
export function splitRanges(
  dtype: DType,
  length: number,
  limitBytes: number,
): Pick<Part, "start" | "length">[] {
  const most = (Math.floor(limitBytes / 512) * 512) / bytesPerElement(dtype);
  const ranges: Pick<Part, "start" | "length">[] = [];
  for (let start = 0; start < length; start += most) {
    ranges.push({ start, length: Math.min(most, length - start) });
  }
  return ranges;
}
