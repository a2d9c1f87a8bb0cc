import { gzipSync } from "node:zlib";
import { build, type Rolldown } from "vite";
import { expect, it } from "vitest";

const entry = "all-of-the-backend";

it("the WebGPU backend, with its kernels and core, is less than 40 KB in a page, gzipped", async () => {
  const built = await build({
    configFile: false,
    logLevel: "error",
    resolve: { conditions: ["@flash-moe/source"] },
    plugins: [
      {
        name: "entry",
        resolveId: (id) => (id === entry ? id : undefined),
        load: (id) => (id === entry ? 'export * from "@flash-moe/backend-webgpu"' : undefined),
      },
    ],
    // Dawn is for Node.
    build: {
      write: false,
      target: "es2022",
      rolldownOptions: { input: entry, external: "webgpu", preserveEntrySignatures: "strict" },
    },
  });
  const { output } = built as Rolldown.RolldownOutput;
  const code = output.map((file) => (file.type === "chunk" ? file.code : "")).join("\n");
  expect(code).toContain("linear_tiled");
  const size = gzipSync(code, { level: 9 }).length;
  expect(size).toBeLessThan(40_000);
}, 60_000);
