import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";
import { type OpenPage, openPage } from "./open-in-chromium.js";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Opens a page of Chromium that consists of a module; it has run when this resolves. Packages are loaded from their
 * sources, as a bundler would, and paths that begin with a slash are those of the clone. Closing the page ends browser
 * and server. Rejects when the browser cannot be started. `headers` are those of the page and of all it loads.
 */
export async function openModulePage(
  module: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<OpenPage> {
  const page = `<!doctype html><script type="module">${module}</script>`;
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
    return {
      page: opened.page,
      close: async () => {
        await opened.close();
        await server.close();
      },
    };
  } catch (error) {
    await server.close();
    throw error;
  }
}
