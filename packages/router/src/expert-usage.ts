import { expectInteger, FlashMoeError } from "@flash-moe/core";

/** How evenly tokens used the experts. */
export interface ExpertUsageReport {
  readonly numExperts: number;
  /** Tokens counted. */
  readonly tokens: number;
  /** How often each expert was chosen, [N]. */
  readonly counts: Uint32Array;
  /** Experts that were chosen at least once. */
  readonly used: number;
  /** `used / numExperts`. */
  readonly share: number;
  /**
   * KL divergence in nats of the usage from the uniform distribution: 0 is perfectly even, log N is one
   * expert for all. Usage is the sum of routing weights where they were given, else the counts (as in
   * PEER, arXiv 2407.04153, section 3.3). NaN if a weight was.
   */
  readonly unevenness: number;
}

/** Adds up, over many batches, which experts were chosen. Lives on the host. */
export class ExpertUsage {
  readonly numExperts: number;
  readonly #counts: Uint32Array;
  readonly #mass: Float64Array;
  #tokens = 0;

  constructor(numExperts: number) {
    expectInteger("numExperts", numExperts, 1, 2 ** 31 - 1);
    this.numExperts = numExperts;
    this.#counts = new Uint32Array(numExperts);
    this.#mass = new Float64Array(numExperts);
  }

  /**
   * Counts `ids` [T, k] of `tokens` tokens; `weights` [T, k], when given, weigh the unevenness.
   * INVALID_ARGUMENT, and nothing counted, for an id out of range or lists that do not fit together.
   */
  add(tokens: number, ids: Int32Array, weights?: Float32Array): void {
    expectInteger("tokens", tokens, 0);
    if (!(ids instanceof Int32Array)) {
      throw new FlashMoeError("INVALID_ARGUMENT", `ids is ${typeof ids}; takes an Int32Array`);
    }
    const { length } = ids;
    if (tokens === 0 ? length > 0 : length % tokens !== 0) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `ids has ${length} elements for ${tokens} tokens; takes as many for each`,
      );
    }
    if (weights !== undefined && weights?.length !== length) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `weights has ${weights?.length} elements; takes ${length}, as ids`,
      );
    }
    for (let i = 0; i < ids.length; i++) {
      if (ids[i] < 0 || ids[i] >= this.numExperts) {
        throw new FlashMoeError(
          "INVALID_ARGUMENT",
          `ids[${i}] is ${ids[i]}; takes 0 to ${this.numExperts - 1}`,
        );
      }
    }
    for (let i = 0; i < ids.length; i++) {
      this.#counts[ids[i]]++;
      this.#mass[ids[i]] += weights === undefined ? 1 : weights[i];
    }
    this.#tokens += tokens;
  }

  report(): ExpertUsageReport {
    let used = 0;
    let total = 0;
    for (let i = 0; i < this.numExperts; i++) {
      if (this.#counts[i] > 0) used++;
      total += this.#mass[i];
    }
    let unevenness = 0;
    for (let i = 0; i < this.numExperts; i++) {
      const share = total === 0 ? 0 : this.#mass[i] / total;
      if (share !== 0) unevenness += share * Math.log(share * this.numExperts);
    }
    return {
      numExperts: this.numExperts,
      tokens: this.#tokens,
      counts: this.#counts.slice(),
      used,
      share: used / this.numExperts,
      unevenness,
    };
  }
}
