// Compiles assembly/ with AssemblyScript, with and without relaxed SIMD, and writes both modules into
// src/modules.generated.ts: pnpm --filter @flash-moe/backend-wasm kernels
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const folder = fileURLToPath(new URL(".", import.meta.url));
const generated = new URL("src/modules.generated.ts", import.meta.url);

/**
 * @param {"simd" | "relaxed-simd"} feature
 * @returns {Promise<Uint8Array>}
 */
async function compile(feature) {
  /** @type {Uint8Array | undefined} */
  let binary;
  const { error, stderr } = await asc.main(
    [
      "assembly/index.ts",
      "--baseDir",
      folder,
      "--outFile",
      "kernels.wasm",
      "--runtime",
      "stub",
      "--importMemory",
      "--noAssert",
      "-O3",
      "--converge",
      "--enable",
      "simd",
      ...(feature === "relaxed-simd" ? ["--enable", "relaxed-simd"] : []),
    ],
    {
      // AssemblyScript looks for .ts; its own ending keeps the tools of TypeScript, which it is not, away.
      readFile(name, baseDir) {
        return readFile(resolve(baseDir, name.replace(/\.ts$/, ".as")), "utf8").catch(() => null);
      },
      writeFile(name, contents) {
        if (name === "kernels.wasm") binary = /** @type {Uint8Array} */ (contents);
      },
    },
  );
  if (error || binary === undefined) throw new Error(`asc: ${error?.message}\n${stderr.toString()}`);
  return binary;
}

/** The text of src/modules.generated.ts, as it has to be. */
export async function generateModules() {
  const plain = Buffer.from(await compile("simd")).toString("base64");
  const relaxed = Buffer.from(await compile("relaxed-simd")).toString("base64");
  return `// Made from assembly/ by compile-kernels.mjs; a test compares the two.

/** The kernels, in base64. */
export const plainModule: string =
  "${plain}";

/** The same with relaxed SIMD: fused multiply-add. */
export const relaxedModule: string =
  "${relaxed}";
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(generated, await generateModules());
}
