import { defineConfig } from "vite";
import { mobyDick } from "./vite/moby-dick.js";

/** What makes a page cross-origin isolated: only then may WebAssembly share memory between threads. */
const headers = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

export default defineConfig({
  // Relative, so that the built page works from any folder of any server.
  base: "./",
  plugins: [mobyDick()],
  // The packages from their sources: nothing has to be built first.
  resolve: { conditions: ["@flash-moe/source", "module", "browser", "development|production"] },
  server: { headers },
  preview: { headers },
  worker: { format: "es" },
  build: { target: "es2022", sourcemap: true },
});
