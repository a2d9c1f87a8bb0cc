/**
 * A layer in one of the libraries. `gradient` is forward and backward, as automatic differentiation does them.
 * @typedef {{ forward(): Promise<void>, output(): Promise<Float32Array>, ids(): Promise<ArrayLike<number>>,
 *   gradient?(): Promise<void>, backward?(): Promise<void>, release(): Promise<void> }} Runner
 */

/** A library in this process. */
export class LocalContender {
  /** @type {Runner | undefined} */
  #runner;
  #create;

  /** @param {string} library @param {(part: "layer" | "routed") => Promise<Runner>} create */
  constructor(library, create) {
    this.library = library;
    this.#create = create;
  }

  /**
   * "prepare" a part: tells what can be timed. "output": the hidden states and the expert ids. "time": milliseconds a
   * call of `operation`, over `calls` calls.
   * @param {"prepare" | "output" | "time"} question @param {any} [value]
   */
  async ask(question, value) {
    if (question === "prepare") {
      await this.#runner?.release();
      this.#runner = undefined;
      this.#runner = await this.#create(value);
      return Object.keys(this.#runner);
    }
    const runner = this.#runner;
    if (question === "output")
      return { output: await runner.output(), ids: Int32Array.from(await runner.ids()) };
    const start = performance.now();
    for (let call = 0; call < value.calls; call++) await runner[value.operation]();
    return (performance.now() - start) / value.calls;
  }

  async end() {
    await this.#runner?.release();
  }
}
