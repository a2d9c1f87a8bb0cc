import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";
import { openInChromium } from "./open-in-chromium.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs a module in a page of Chromium and resolves with what its function `run` returns, as JSON can tell it;
 * an exception becomes `{ error }`. Packages are loaded from their sources, as a bundler would. Rejects when
 * the browser cannot be started or ends by itself.
 */
export async function answerOfPage<Answer>(
  module: string,
  flags: readonly string[],
): Promise<Answer | { error: string }> {
  const page = `<!doctype html><script type="module">
    ${module}
    const answer = await run().catch((error) => ({ error: String(error?.stack ?? error) }));
    await fetch("/answer", { method: "POST", body: JSON.stringify(answer) });
  </script>`;
  let resolveAnswer!: (answer: Answer | { error: string }) => void;
  const answered = new Promise<Answer | { error: string }>((resolve) => {
    resolveAnswer = resolve;
  });
  const server = await createViteServer({
    root,
    configFile: false,
    logLevel: "error",
    appType: "custom",
    optimizeDeps: { noDiscovery: true },
    resolve: { conditions: ["@flash-moe/source"] },
    server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
  });
  try {
    server.middlewares.use((request, response) => {
      if (request.url === "/answer") {
        let body = "";
        request.on("data", (text) => {
          body += text;
        });
        request.on("end", () => {
          response.end();
          resolveAnswer(JSON.parse(body));
        });
        return;
      }
      void server.transformIndexHtml("/index.html", page).then((html) => {
        response.setHeader("content-type", "text/html");
        response.end(html);
      });
    });
    await server.listen();
    const address = server.httpServer?.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    const chromium = openInChromium(`http://127.0.0.1:${address.port}/`, flags);
    try {
      return await Promise.race([answered, chromium.ended]);
    } finally {
      await chromium.close();
    }
  } finally {
    await server.close();
  }
}
