// Libraries in a page of the Chromium that the tests run in: flash-moe and TensorFlow.js, on one software adapter.
import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";

const folder = "/benchmarks/peers/node_modules/@tensorflow";
// Scripts, not modules: their modules import packages that are none.
const scripts = [
  `${folder}/tfjs/dist/tf.min.js`,
  `${folder}/tfjs-backend-webgpu/dist/tf-backend-webgpu.min.js`,
];
const page = `
  async function load() {
    for (const src of ${JSON.stringify(scripts)}) {
      await new Promise((onload, onerror) => {
        document.head.append(Object.assign(document.createElement("script"), { src, onload, onerror }));
      });
    }
    await import("/benchmarks/peers/page.mjs");
  }
  globalThis.loaded = load();`;

/** A library in a page. */
class PageContender {
  #opened;
  #index;

  constructor(library, opened, index) {
    this.library = library;
    this.#opened = opened;
    this.#index = index;
  }

  /** @param {string} question @param {unknown} [value] */
  ask(question, value) {
    return this.#opened.page.evaluate(
      ([index, ...asked]) => /** @type {any} */ (globalThis).ask(index, ...asked),
      [this.#index, question, value],
    );
  }

  end() {}
}

/**
 * Opens the page with its libraries; the first is flash-moe. `close` ends the browser.
 * @param {import("./problem.mjs").Size} size
 */
export async function openContenders(size) {
  // The package is in TypeScript, as the tests take it.
  const loader = await createViteServer({
    root: fileURLToPath(new URL("../..", import.meta.url)),
    configFile: false,
    logLevel: "error",
    server: { middlewareMode: true, hmr: false, watch: null },
  });
  const { openModulePage } = await loader.ssrLoadModule("/tools/chromium/open-module-page.ts");
  const { softwareWebGpu } = await loader.ssrLoadModule("/tools/chromium/open-in-chromium.ts");
  const opened = await openModulePage(page, softwareWebGpu);
  await opened.page.evaluate("loaded");
  const device = await opened.page.evaluate((given) => /** @type {any} */ (globalThis).begin(given), size);
  return {
    device,
    contenders: ["flash-moe webgpu", "TensorFlow.js WebGPU"].map(
      (library, index) => new PageContender(library, opened, index),
    ),
    close: async () => {
      await opened.close();
      await loader.close();
    },
  };
}
