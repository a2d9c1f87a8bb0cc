import { FlashMoeError } from "@flash-moe/core";
import type { Check } from "../step.js";
import type { WasmBuffer } from "../wasm-buffer.js";

/** What to say of an expert id of `ids` [tokens, topK] that is none; its place is token * topK + slot. */
export function checkOfIds(op: string, ids: WasmBuffer, topK: number, numExperts: number): Check {
  return {
    values: ids.address,
    describe(place, value) {
      const token = Math.floor(place / topK);
      return new FlashMoeError(
        "INVALID_ARGUMENT",
        `${op}: ids holds ${value} for token ${token}, slot ${place - token * topK}; ` +
          `takes expert ids from 0 to ${numExperts - 1}`,
      );
    },
  };
}
