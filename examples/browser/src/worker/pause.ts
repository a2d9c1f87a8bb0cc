/** Holds work back until it is let go again. */
export class Pause {
  #resume: (() => void) | undefined;
  #held: Promise<void> | undefined;

  set(paused: boolean): void {
    if (paused === (this.#held !== undefined)) return;
    if (paused) {
      this.#held = new Promise((resolve) => {
        this.#resume = resolve;
      });
      return;
    }
    this.#resume?.();
    this.#held = undefined;
  }

  /** Resolves when nothing is held back, or rejects with the signal's reason. */
  async passed(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#held === undefined) return;
    let stop: (() => void) | undefined;
    const aborted = new Promise<void>((resolve) => {
      stop = resolve;
      signal.addEventListener("abort", stop);
    });
    await Promise.race([this.#held, aborted]);
    if (stop !== undefined) signal.removeEventListener("abort", stop);
    signal.throwIfAborted();
  }
}
