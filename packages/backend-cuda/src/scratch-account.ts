import type { MemoryBudget } from "@flash-moe/core";
import type { NativeDevice } from "./addon.js";

/** Tells the backend's budget what the device has taken for intermediates: the addon counts and limits them. */
export class ScratchAccount {
  readonly #device: NativeDevice;
  readonly #budget: MemoryBudget;
  #held = 0;
  #peak = 0;

  constructor(device: NativeDevice, budget: MemoryBudget) {
    this.#device = device;
    this.#budget = budget;
  }

  /** To be called after whatever may have changed it. */
  update(): void {
    const { memory } = this.#device;
    const [live, scratch, peak] = [memory[0], memory[1], memory[2]];
    if (scratch !== this.#held) {
      this.#budget.releaseScratch(this.#held);
      this.#budget.reserveScratch(scratch, "scratch");
      this.#held = scratch;
    }
    if (peak === this.#peak) return;
    this.#peak = peak;
    // What an op took and gave back.
    const passing = peak - live - scratch;
    if (passing > 0) this.#budget.withScratch(passing, "scratch", () => {});
  }
}
