import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, preview } from "vite";

const root = fileURLToPath(new URL("../..", import.meta.url));

export interface ServedPage {
  readonly url: string;
  /** Where the built page lies. */
  readonly folder: string;
  close(): Promise<void>;
}

/** Builds the page into a folder of its own and serves that, as `vite preview` would. */
export async function servePage(): Promise<ServedPage> {
  const folder = await mkdtemp(join(tmpdir(), "flash-moe-page-"));
  const output = { outDir: folder, emptyOutDir: true };
  await build({ root, logLevel: "error", build: output });
  const server = await preview({
    root,
    logLevel: "error",
    build: output,
    preview: { host: "127.0.0.1", port: 0 },
  });
  const [url] = server.resolvedUrls?.local ?? [];
  if (url === undefined) throw new Error("the server has no address");
  return {
    url,
    folder,
    async close() {
      await server.close();
      await rm(folder, { recursive: true });
    },
  };
}
