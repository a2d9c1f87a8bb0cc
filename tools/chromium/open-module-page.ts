import { type OpenPage, openPage } from "./open-in-chromium.js";
import { servePage } from "./serve-page.mjs";

/**
 * Opens a page of Chromium that consists of a module; it has run when this resolves. Packages are loaded as
 * `servePage` says. Closing the page ends browser and server. Rejects when the browser cannot be started. `headers` are
 * those of the page and of all it loads.
 */
export async function openModulePage(
  module: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<OpenPage> {
  const server = await servePage(`<!doctype html><script type="module">${module}</script>`, headers);
  try {
    const opened = await openPage(server.url, flags);
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
