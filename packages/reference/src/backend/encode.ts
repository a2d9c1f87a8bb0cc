import { float32ToBf16, float32ToF16 } from "@flash-moe/core";
import type { FloatArray } from "../oracle/index.js";
import { float32Data, type Storage } from "./storage.js";

const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/**
 * An f32 that rounds to the f16 and the bf16 which `value` itself is nearest to: if `value` is no f32, the
 * neighbour of it whose last bit is 1. Rounding to the nearest f32 first could make a tie of what is none.
 * (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
 * rounding to odd", IEEE Transactions on Computers 57, 2008.)
 */
export function roundToOddFloat32(value: number): number {
  single[0] = value;
  const nearest = single[0];
  if (nearest === value || Number.isNaN(value)) return nearest;
  if (Math.abs(nearest) > Math.abs(value)) singleBits[0] -= 1;
  singleBits[0] |= 1;
  return single[0];
}

/** Stores all of `values` in `target` from element `start` on, each rounded once to the dtype of `target`. */
export function encodeInto(target: Storage, values: FloatArray, start = 0): void {
  const { data, dtype } = target;
  if (dtype === "f32") {
    data.set(values, start);
  } else if (dtype === "f16") {
    for (let n = 0; n < values.length; n++) data[start + n] = float32ToF16(roundToOddFloat32(values[n]));
  } else {
    for (let n = 0; n < values.length; n++) data[start + n] = float32ToBf16(roundToOddFloat32(values[n]));
  }
}

/** Stores a whole output; with `accumulate`, which takes f32, adds it to what is there. */
export function storeOutput(target: Storage, values: Float64Array, accumulate: boolean): void {
  if (accumulate) addTo(float32Data(target), 0, values);
  else encodeInto(target, values);
}

/** `target[start + n] += values[n]`. */
export function addTo(target: FloatArray, start: number, values: FloatArray): void {
  for (let n = 0; n < values.length; n++) target[start + n] += values[n];
}
