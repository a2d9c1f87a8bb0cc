// jax-js starts its threads as browsers do: new Worker(blob URL). Node's workers take a file or a source text.
import { resolveObjectURL } from "node:buffer";
import { Worker } from "node:worker_threads";

/** Installs a `Worker` for blob URLs, and `threads` as the number of cores that is told. @param {number} threads */
export function installBrowserWorker(threads) {
  Object.defineProperty(globalThis, "navigator", {
    value: { hardwareConcurrency: threads },
    configurable: true,
  });
  globalThis.Worker = /** @type {any} */ (BlobWorker);
}

const prelude = `
  const { parentPort } = require("node:worker_threads");
  globalThis.self = globalThis;
  globalThis.postMessage = (message) => parentPort.postMessage(message);
  parentPort.on("message", (data) => globalThis.onmessage({ data }));
`;

class BlobWorker {
  /** @type {Promise<Worker>} */
  #worker;
  /** @type {((event: { data: unknown }) => void) | null} */
  onmessage = null;
  /** @type {((error: Error) => void) | null} */
  onerror = null;

  constructor(/** @type {string} */ url) {
    const blob = resolveObjectURL(url);
    if (blob === undefined) throw new Error(`${url} is no blob`);
    this.#worker = blob.text().then((text) => {
      const worker = new Worker(prelude + text, { eval: true });
      worker.on("message", (data) => this.onmessage?.({ data }));
      worker.on("error", (error) => this.onerror?.(error));
      worker.unref();
      return worker;
    });
  }

  async postMessage(/** @type {unknown} */ message) {
    const worker = await this.#worker;
    worker.ref();
    worker.postMessage(message);
  }
}
