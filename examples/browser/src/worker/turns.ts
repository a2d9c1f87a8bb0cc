/**
 * Lets one piece of work at a time touch the device, in the order in which they ask. Training takes a turn for each
 * step, so that a sentence can be routed or a text continued in between, and a measurement is left alone.
 */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }
}
