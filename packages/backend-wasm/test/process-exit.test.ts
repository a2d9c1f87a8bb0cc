import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** What a process says that loads this package from its sources, opens it with threads, and does `work`. */
async function outputOf(work: string): Promise<string> {
  const conditions = `["@flash-moe/source", "module", "node", "development|production"]`;
  const script = `
    import { createViteServer } from "vitest/node";
    const server = await createViteServer({
      configFile: false, logLevel: "error", appType: "custom", optimizeDeps: { noDiscovery: true },
      resolve: { conditions: ${conditions} }, ssr: { resolve: { conditions: ${conditions} } },
      server: { middlewareMode: true, hmr: false, watch: null, ws: false },
    });
    const { wasm } = await server.ssrLoadModule("/packages/backend-wasm/src/index.ts");
    await server.close();
    const backend = await wasm.open({ threads: 2 });
    const size = 512;
    const a = backend.upload(new Float32Array(size * size).fill(1), [size, size]).buffer;
    const output = backend.zeros([size, size]);
    const product = () => {
      backend.ops.linear({ rows: size, inner: size, columns: size, a, b: a, output: output.buffer });
    };
    ${work}`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], {
    cwd: root,
    timeout: 50_000,
  });
  return stdout.trim();
}

it("lets the process end while a backend is open and idle", async () => {
  const work = `product(); await backend.sync(); console.log("left open")`;
  expect(await outputOf(work)).toBe("left open");
});

it("keeps the process until a read has its answer", async () => {
  const work = "product(); void output.read().then((values) => console.log(values[7]))";
  expect(await outputOf(work)).toBe("512");
});
