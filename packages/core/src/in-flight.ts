/** The work that promises are waiting for: all of it rejects at once when the device is lost. */
export class InFlight {
  // Not a race against a promise of the loss: that would hold every result until the device is lost.
  readonly #waiting = new Map<Promise<unknown>, (reason: unknown) => void>();

  /** Like `work()`, but rejects early when `rejectAll` is called. */
  run<Result>(work: () => Promise<Result>): Promise<Result> {
    let reject!: (reason: unknown) => void;
    const result = new Promise<Result>((resolve, rejectResult) => {
      reject = rejectResult;
      Promise.resolve(work()).then(resolve, rejectResult);
    });
    this.#waiting.set(result, reject);
    const forget = () => this.#waiting.delete(result);
    result.then(forget, forget);
    return result;
  }

  rejectAll(reason: unknown): void {
    for (const reject of this.#waiting.values()) reject(reason);
  }

  /** Resolves when everything that is in flight now has ended, well or badly. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#waiting.keys());
  }
}
