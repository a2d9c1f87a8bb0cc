import { FlashMoeError } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { elementAddress, type WasmBuffer } from "../wasm-buffer.js";

/** Reports the expert id at `pair` (token * topK + slot) of `ids`, if that is what a kernel returned; -1 is none. */
export function reportWrongId(
  op: string,
  pair: number,
  ids: WasmBuffer,
  topK: number,
  numExperts: number,
  context: OpContext,
): void {
  if (pair < 0) return;
  const token = Math.floor(pair / topK);
  context.fail(
    new FlashMoeError(
      "INVALID_ARGUMENT",
      `${op}: ids holds ${context.readInt(elementAddress(ids, pair))} for token ${token}, ` +
        `slot ${pair - token * topK}; takes expert ids from 0 to ${numExperts - 1}`,
    ),
  );
}
