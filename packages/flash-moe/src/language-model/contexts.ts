import { byteValues } from "./config.js";

/** What stands before the first byte of a text, as if a line had ended there. */
const newline = 10;

/**
 * What the model sees of a text at each position: the ids [T, window] of the embeddings of the bytes before
 * it, the nearest first. Byte b at distance d (from 0) has the id d * 256 + b. A position may be the end of
 * the text, whose next byte is not known.
 */
export function contextIds(text: Uint8Array, positions: ArrayLike<number>, window: number): Int32Array {
  const ids = new Int32Array(positions.length * window);
  for (let t = 0; t < positions.length; t++) {
    for (let distance = 0; distance < window; distance++) {
      const at = positions[t] - 1 - distance;
      ids[t * window + distance] = distance * byteValues + (at < 0 ? newline : text[at]);
    }
  }
  return ids;
}
