import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

/** A library in its process. */
export class ChildContender {
  #process;
  /** @type {{ resolve(answer: any): void, reject(error: Error): void } | undefined} */
  #asker;
  /** @type {string | undefined} */
  #gone;

  constructor(library, threads, size) {
    this.library = library;
    const script = fileURLToPath(new URL("child.mjs", import.meta.url));
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

  end() {
    if (this.#process.connected) this.#process.disconnect();
    this.#process.kill("SIGKILL");
  }
}
