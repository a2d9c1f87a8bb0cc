import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";
import { openPage } from "./open-in-chromium.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs a module in a page of Chromium and resolves with what its function `run` returns, as JSON can tell it;
 * an exception, and a browser that ends by itself, become `{ error }`. Packages are loaded from their sources, as a
 * bundler would. Rejects when the browser cannot be started. `headers` are those of the page and of all it loads.
 */
export async function answerOfPage<Answer>(
  module: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer | { error: string }> {
  const page = `<!doctype html><script type="module">
    ${module}
    globalThis.answer = () => run().catch((error) => ({ error: String(error?.stack ?? error) }));
  </script>`;
  const server = await createViteServer({
    root,
    configFile: false,
    logLevel: "error",
    appType: "custom",
    optimizeDeps: { noDiscovery: true },
    resolve: { conditions: ["@flash-moe/source"] },
    server: { port: 0, host: "127.0.0.1", hmr: false, watch: null, headers },
  });
  try {
    server.middlewares.use((_, response) => {
      void server.transformIndexHtml("/index.html", page).then((html) => {
        response.setHeader("content-type", "text/html");
        for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
        response.end(html);
      });
    });
    await server.listen();
    const address = server.httpServer?.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    const opened = await openPage(`http://127.0.0.1:${address.port}/`, flags);
    try {
      // A page has loaded when its modules have run.
      const answer: Promise<Answer> = opened.page.evaluate("answer()");
      return await answer.catch((error: unknown) => ({ error: String(error) }));
    } finally {
      await opened.close();
    }
  } finally {
    await server.close();
  }
}
