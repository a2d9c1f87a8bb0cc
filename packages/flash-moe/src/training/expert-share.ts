/** Which share of the experts was chosen at least once in the last batches. */
export class ExpertShare {
  readonly #batches: number;
  readonly #lastUsed: Int32Array;
  #batch = 0;

  constructor(numExperts: number, batches: number) {
    this.#batches = batches;
    this.#lastUsed = new Int32Array(numExperts).fill(-batches);
  }

  /** Counts the ids of one batch. */
  add(ids: Int32Array): void {
    this.#batch++;
    for (const id of ids) this.#lastUsed[id] = this.#batch;
  }

  get share(): number {
    const oldest = this.#batch - this.#batches;
    let used = 0;
    for (const batch of this.#lastUsed) if (batch > oldest) used++;
    return used / this.#lastUsed.length;
  }
}
