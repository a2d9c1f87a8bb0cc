import { type DType, decode, encode, type FloatDType, type TypedArray } from "@flash-moe/core";
import { Random } from "./random.js";

/** Host data of a float buffer: what is uploaded, and exactly the numbers it stands for. */
export interface HostFloats {
  readonly dtype: FloatDType;
  /** Raw bits for f16 and bf16. */
  readonly raw: TypedArray;
  readonly values: Float64Array;
}

/** `values` rounded to `dtype`. */
export function hostFloats(values: ArrayLike<number>, dtype: FloatDType = "f32"): HostFloats {
  const raw = encode(values, dtype);
  return { dtype, raw, values: decodedValues(raw, dtype) };
}

/** The numbers that raw data stands for. */
export function decodedValues(raw: TypedArray, dtype: DType): Float64Array {
  return Float64Array.from(decode(raw, dtype));
}

/** Seeded generators of inputs that have broken kernels: each call goes on where the last one ended. */
export class Inputs {
  readonly random: Random;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  #fill(length: number, next: (index: number) => number): number[] {
    return Array.from({ length }, (_, index) => next(index));
  }

  /** Normal numbers. */
  normal(length: number, dtype: FloatDType = "f32", scale = 1, mean = 0): HostFloats {
    return hostFloats(
      this.#fill(length, () => mean + scale * this.random.normal()),
      dtype,
    );
  }

  /** Normal numbers, one in 16 of them twenty times as large. */
  outliers(length: number, dtype: FloatDType = "f32", scale = 1): HostFloats {
    return hostFloats(
      this.#fill(length, () => scale * this.random.normal() * (this.random.integer(16) === 0 ? 20 : 1)),
      dtype,
    );
  }

  /** Rows of normal numbers: the first times 0, then times 1, 10, 100, ... up to 1e15. */
  everyScale(length: number, dtype: FloatDType = "f32", rowLength = 1): HostFloats {
    const scaleOf = (row: number): number => (row === 0 ? 0 : 10 ** Math.min(row - 1, 15));
    return hostFloats(
      this.#fill(length, (n) => scaleOf(Math.floor(n / rowLength)) * this.random.normal()),
      dtype,
    );
  }

  /** Positive numbers, as second moments are. */
  positive(length: number, scale = 1): HostFloats {
    return hostFloats(this.#fill(length, () => scale * (0.1 + this.random.normal() ** 2)));
  }

  /** Logits of bf16: ties everywhere, also between the sums of pairs. */
  coarse(length: number, step = 0.25): HostFloats {
    return hostFloats(this.#fill(length, () => Math.round(this.random.normal() / step) * step));
  }

  /** The same number everywhere. */
  constant(length: number, value: number, dtype: FloatDType = "f32"): HostFloats {
    return hostFloats(
      this.#fill(length, () => value),
      dtype,
    );
  }

  /** Normal numbers, about one in four of them one of `special`. */
  sprinkled(length: number, special: readonly number[], scale = 1): HostFloats {
    return hostFloats(
      this.#fill(length, () =>
        this.random.integer(4) === 0
          ? special[this.random.integer(special.length)]
          : scale * this.random.normal(),
      ),
    );
  }

  /** Expert ids, drawn independently: duplicates occur. */
  ids(length: number, numExperts: number): Int32Array {
    return Int32Array.from({ length }, () => this.random.integer(numExperts));
  }

  /** `topK` different experts for each token. */
  distinctIds(tokens: number, topK: number, numExperts: number): Int32Array {
    const ids = new Int32Array(tokens * topK);
    const all = Int32Array.from({ length: numExperts }, (_, id) => id);
    for (let t = 0; t < tokens; t++) {
      for (let slot = 0; slot < topK; slot++) {
        const other = slot + this.random.integer(numExperts - slot);
        [all[slot], all[other]] = [all[other], all[slot]];
        ids[t * topK + slot] = all[slot];
      }
    }
    return ids;
  }

  /** One expert in every slot `hotSlot`, any in the others: a load as uneven as can be. */
  hotIds(tokens: number, topK: number, numExperts: number, hot: number): Int32Array {
    return this.ids(tokens * topK, numExperts).map((id, pair) => (pair % topK === 0 ? hot : id));
  }
}

/** A seed of its own for each name, so that adding a case changes no other. */
export function seedOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let n = 0; n < name.length; n++) hash = Math.imul(hash ^ name.charCodeAt(n), 0x01000193);
  return hash >>> 0;
}
