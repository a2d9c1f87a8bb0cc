// Tensors that ours and the others are given alike: made fast, and written to files once.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { hostEntry, writeSafetensors } from "flash-moe";

/** xorshift: the numbers need no quality. */
class Numbers {
  #state;

  /** @param {number} seed */
  constructor(seed) {
    this.#state = (seed * 2_654_435_761) >>> 0 || 1;
  }

  /** 32 bits. */
  next() {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }
}

/**
 * Uniform numbers of mean 0 and this deviation.
 *
 * @param {number[]} shape @param {"bf16" | "f32"} dtype @param {number} deviation @param {number} seed
 * @returns {HostTensor}
 */
export function uniform(shape, dtype, deviation, seed) {
  return { values: uniformValues(elementsOf(shape), dtype, deviation, seed), shape, dtype };
}

/**
 * Of more numbers than these, the first so many come again and again. Tables have hundreds of millions, which would take
 * longer to make than to use; no two of their rows are alike, since this is no multiple of a row.
 */
const period = 2 ** 20 + 7;

/** @param {number} length @param {"bf16" | "f32"} dtype @param {number} deviation @param {number} seed */
function uniformValues(length, dtype, deviation, seed) {
  const out = dtype === "f32" ? new Float32Array(length) : new Uint16Array(length);
  const first = Math.min(length, period);
  const numbers = new Numbers(seed);
  const scale = (deviation * Math.sqrt(12)) / 2 ** 32;
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  for (let i = 0; i < first; i++) {
    float[0] = (numbers.next() - 2 ** 31) * scale;
    out[i] = dtype === "f32" ? float[0] : word[0] >>> 16;
  }
  for (let done = first; done < length; done += first)
    out.set(out.subarray(0, Math.min(first, length - done)), done);
  return out;
}

/** @param {number[]} shape @param {number} below @param {number} seed @returns {HostTensor} */
export function integers(shape, below, seed) {
  const numbers = new Numbers(seed);
  const values = new Int32Array(elementsOf(shape));
  for (let i = 0; i < values.length; i++) values[i] = Math.floor((numbers.next() / 2 ** 32) * below);
  return { values, shape, dtype: "i32" };
}

/** @param {number} value @param {number[]} shape @returns {HostTensor} */
export function constant(value, shape) {
  return { values: new Float32Array(elementsOf(shape)).fill(value), shape, dtype: "f32" };
}

/** @param {number[]} shape */
function elementsOf(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

const written = /** @type {const} */ ({ f32: "F32", bf16: "BF16", i32: "I32" });

/** @typedef {{ values: Float32Array | Uint16Array | Int32Array, shape: number[], dtype: "f32" | "bf16" | "i32" }} HostTensor */

/**
 * Writes `folder`/`name`.safetensors, unless it is there.
 *
 * @param {string} folder @param {string} name @param {Record<string, HostTensor>} tensors
 */
export async function writeOnce(folder, name, tensors) {
  const path = join(folder, `${name}.safetensors`);
  if (existsSync(path)) return;
  await writeSafetensors(
    path,
    Object.entries(tensors).map(([key, { values, shape, dtype }]) =>
      hostEntry(key, written[dtype], shape, values),
    ),
  );
}
