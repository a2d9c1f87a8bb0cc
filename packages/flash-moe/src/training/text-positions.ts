import { FlashMoeError, SeededRandom } from "@flash-moe/core";

const goldenRatio = (1 + Math.sqrt(5)) / 2;

/**
 * The positions of a text of `length` bytes in an order to learn them in: each comes once before any comes
 * again, and every batch is spread evenly over the whole text, because the next position is always one
 * golden section (rounded to a number that shares no factor with the length) further on, around the end.
 * The seed chooses where it begins.
 */
export class TextPositions {
  readonly #length: number;
  readonly #stride: number;
  #next: number;

  /** INVALID_ARGUMENT for a text without a byte. */
  constructor(length: number, seed: number) {
    if (!Number.isInteger(length) || length < 1) {
      throw new FlashMoeError("INVALID_ARGUMENT", `the text has ${String(length)} bytes; takes at least 1`);
    }
    let stride = Math.max(1, Math.round(length / goldenRatio));
    while (greatestCommonDivisor(stride, length) !== 1) stride++;
    this.#length = length;
    this.#stride = stride;
    this.#next = new SeededRandom(seed).integer(length);
  }

  take(count: number): Float64Array {
    const positions = new Float64Array(count);
    for (let i = 0; i < count; i++) {
      positions[i] = this.#next;
      this.#next = (this.#next + this.#stride) % this.#length;
    }
    return positions;
  }
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
