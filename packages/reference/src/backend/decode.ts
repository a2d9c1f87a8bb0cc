import type { ReadRow } from "../oracle/index.js";
import { decodeBf16, decodeF16 } from "./half-decoding.js";
import type { Scratch } from "./scratch.js";
import type { Storage } from "./storage.js";

/** All values of a float buffer: its own memory if it is f32 (do not write to it), else a decoded copy. */
export function decodeToFloat32(storage: Storage, scratch: Scratch): Float32Array {
  if (storage.dtype === "f32") return storage.data as Float32Array;
  return decodedCopy(storage, scratch);
}

/** A copy of all values of a float buffer in float64. */
export function decodeToFloat64(storage: Storage, scratch: Scratch): Float64Array {
  scratch.count(8 * storage.data.length);
  return new Float64Array(decodeToFloat32(storage, scratch));
}

/** Decodes the elements of a float buffer from `start` on into all of `target`. */
export type ReadRange = (start: number, target: Float64Array) => void;

/** Reads pieces of up to `longest` elements, without decoding the rest. */
export function rangeReader(storage: Storage, longest: number, scratch: Scratch): ReadRange {
  if (storage.dtype === "f32") {
    const values = storage.data as Float32Array;
    return (start, target) => {
      for (let n = 0; n < target.length; n++) target[n] = values[start + n];
    };
  }
  const bits = storage.data as Uint16Array;
  if (storage.dtype === "f16") return (start, target) => decodeF16(bits, start, target);
  scratch.count(4 * longest);
  const piece = new Float32Array(longest);
  return (start, target) => {
    const values = piece.length === target.length ? piece : piece.subarray(0, target.length);
    decodeBf16(bits, start, values);
    for (let n = 0; n < target.length; n++) target[n] = values[n];
  };
}

/** Reads rows of a table [N, H]; only those that are asked for are decoded. */
export function rowReader(table: Storage, hiddenSize: number, scratch: Scratch): ReadRow {
  const read = rangeReader(table, hiddenSize, scratch);
  return (id, target) => read(id * hiddenSize, target);
}

function decodedCopy(storage: Storage, scratch: Scratch): Float32Array {
  const bits = storage.data as Uint16Array;
  scratch.count(4 * bits.length);
  const values = new Float32Array(bits.length);
  if (storage.dtype === "f16") decodeF16(bits, 0, values);
  else decodeBf16(bits, 0, values);
  return values;
}
