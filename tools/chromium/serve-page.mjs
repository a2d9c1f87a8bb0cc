import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * What makes a page cross-origin isolated, so that it may share memory with workers.
 *
 * @type {Readonly<Record<string, string>>}
 */
export const isolationHeaders = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/**
 * Serves one page, at every path that is no file. What its modules import comes from the packages' sources, as a bundler
 * would have it, and paths that begin with a slash are those of the clone.
 *
 * @param {string} html
 * @param {Readonly<Record<string, string>>} headers of the page and of all it loads
 * @param {(body: string) => void} [onPost] gets what the page posts, to any path
 * @returns {Promise<{ url: string, close(): Promise<void> }>}
 */
export async function servePage(html, headers, onPost) {
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
    server.middlewares.use((request, response) => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      if (request.method === "POST") {
        let body = "";
        request.setEncoding("utf8");
        request.on("data", (part) => {
          body += part;
        });
        request.on("end", () => {
          response.end();
          onPost?.(body);
        });
        return;
      }
      response.setHeader("content-type", "text/html; charset=utf-8");
      void server.transformIndexHtml("/index.html", html).then((page) => response.end(page));
    });
    await server.listen();
    const address = server.httpServer?.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    return { url: `http://127.0.0.1:${address.port}/`, close: () => server.close() };
  } catch (error) {
    await server.close();
    throw error;
  }
}
