import { FlashMoeError } from "@flash-moe/core";
import type { OpContext } from "./op-context.js";

/** Reports the first of the expert ids [T, k] that is not in [0, numExperts). The oracle passes them over. */
export function checkExpertIds(
  op: string,
  ids: Int32Array,
  topK: number,
  numExperts: number,
  context: OpContext,
): void {
  for (let pair = 0; pair < ids.length; pair++) {
    if (ids[pair] >= 0 && ids[pair] < numExperts) continue;
    const token = Math.floor(pair / topK);
    context.fail(
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `${op}: ids holds ${ids[pair]} for token ${token}, slot ${pair - token * topK}; ` +
          `takes expert ids from 0 to ${numExperts - 1}`,
      ),
    );
    return;
  }
}

/**
 * How many of the row ids of a compact gradient count, at most `ids.length`. Reports a count that is out of
 * range, and the first id that is not in [0, rows).
 */
export function checkRowIds(
  op: string,
  ids: Int32Array,
  count: number,
  rows: number,
  context: OpContext,
): number {
  const valid = Math.max(0, Math.min(count, ids.length));
  if (valid !== count) {
    context.fail(
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `${op}: compact.count holds ${count}; takes 0 to ${ids.length}, the capacity`,
      ),
    );
  }
  const wrong = ids.subarray(0, valid).findIndex((id) => id < 0 || id >= rows);
  if (wrong !== -1) {
    context.fail(
      new FlashMoeError(
        "INVALID_ARGUMENT",
        `${op}: compact.ids[${wrong}] is ${ids[wrong]}; takes row ids from 0 to ${rows - 1}`,
      ),
    );
  }
  return valid;
}
