import { float32ToBf16, float32ToF16 } from "@flash-moe/core";
import type { FloatArray } from "../oracle/index.js";
import { float32Data, type Storage } from "./storage.js";

/** Stores all of `values` in `target` from element `start` on, each rounded once to the dtype of `target`. */
export function encodeInto(target: Storage, values: FloatArray, start = 0): void {
  const { data, dtype } = target;
  if (dtype === "f32") {
    data.set(values, start);
  } else if (dtype === "f16") {
    for (let n = 0; n < values.length; n++) data[start + n] = float32ToF16(values[n]);
  } else {
    for (let n = 0; n < values.length; n++) data[start + n] = float32ToBf16(values[n]);
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
