import { gzipSync } from "node:zlib";
import { build, createLogger, type Rolldown } from "vite";
import { expect, it } from "vitest";

/** What a page gets that uses all of these, and what there was to say against it. */
async function bundle(
  ...packages: readonly string[]
): Promise<{ code: string; imports: string[]; warnings: string[] }> {
  const entry = "all-of-it";
  const warnings: string[] = [];
  const logger = createLogger("warn");
  logger.warn = logger.warnOnce = (message) => void warnings.push(message);
  const built = await build({
    configFile: false,
    customLogger: logger,
    resolve: { conditions: ["@flash-moe/source"] },
    plugins: [
      {
        name: "entry",
        resolveId: (id) => (id === entry ? id : undefined),
        load: (id) =>
          id === entry
            ? packages.map((name) => `export * from ${JSON.stringify(name)}`).join("\n")
            : undefined,
      },
    ],
    build: {
      write: false,
      target: "es2022",
      chunkSizeWarningLimit: 10_000,
      rolldownOptions: { input: entry, preserveEntrySignatures: "strict" },
    },
  });
  const { output } = built as Rolldown.RolldownOutput;
  const chunks = output.filter((file) => file.type === "chunk");
  return {
    code: chunks.map((chunk) => chunk.code).join("\n"),
    imports: chunks.flatMap((chunk) => [...chunk.imports, ...chunk.dynamicImports]),
    warnings,
  };
}

it("the WebGPU backend, with its kernels and core, is less than 40 KB in a page, gzipped", async () => {
  const { code } = await bundle("@flash-moe/backend-webgpu");
  expect(code).toContain("linear_tiled");
  const size = gzipSync(code, { level: 9 }).length;
  expect(size).toBeLessThan(40_000);
}, 60_000);

it("all of flash-moe, in a page, imports no module of Node's, and bundles without a warning", async () => {
  const { imports, warnings } = await bundle(
    "flash-moe",
    "flash-moe/language-model",
    "@flash-moe/reference/conformance",
  );
  expect(imports).toEqual([]);
  expect(warnings).toEqual([]);
}, 60_000);
