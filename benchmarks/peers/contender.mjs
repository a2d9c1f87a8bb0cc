import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { compareOutputs } from "./compare-outputs.mjs";

/** A library in its process. */
export class Contender {
  #process;
  #library;
  /** @type {{ resolve(answer: any): void, reject(error: Error): void } | undefined} */
  #asker;
  /** @type {string | undefined} */
  #gone;

  constructor(library, threads, size) {
    this.#library = library;
    const script = fileURLToPath(new URL("contender-process.mjs", import.meta.url));
    this.#process = fork(script, [library, String(threads), JSON.stringify(size)], {
      serialization: "advanced",
      execArgv: ["--max-old-space-size=8192"],
    });
    this.#process.on("message", ({ answer, error }) => {
      if (error === undefined) this.#asker?.resolve(answer);
      else this.#asker?.reject(new Error(error));
    });
    this.#process.on("exit", (code, signal) => {
      this.#gone = `its process ended (${signal ?? `exit code ${code}`})`;
      this.#asker?.reject(new Error(this.#gone));
    });
  }

  /** @param {string} question @param {unknown} [value] */
  ask(question, value) {
    return new Promise((resolve, reject) => {
      if (this.#gone !== undefined) reject(new Error(this.#gone));
      this.#asker = { resolve, reject };
      if (this.#gone === undefined) this.#process.send({ question, value });
    });
  }

  /** Prepares and checks it. A library that cannot, or computes something else, is not measured but told. */
  async begin(part, tokens, expected, operations) {
    const row = { library: this.#library };
    try {
      const can = await this.ask("prepare", part);
      const result = await this.ask("output");
      const comparison = expected && compareOutputs(result, expected, tokens);
      if (comparison && !comparison.equal) {
        return { contender: this, row: { ...row, failed: "its output differs", ...comparison }, runs: [] };
      }
      const runs = operations.filter((operation) => can.includes(operation));
      const { relativeError, otherExperts } = comparison ?? {};
      return { contender: this, row: { ...row, relativeError, otherExperts }, runs, result };
    } catch (error) {
      return { contender: this, row: { ...row, failed: error.message.split("\n")[0] }, runs: [] };
    }
  }

  end() {
    if (this.#process.connected) this.#process.disconnect();
    this.#process.kill("SIGKILL");
  }
}
