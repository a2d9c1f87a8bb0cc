// Compiles assembly/ with AssemblyScript, with and without relaxed SIMD, and writes both modules, and the text of
// worker/worker.js, into src/modules.generated.ts: pnpm --filter @flash-moe/backend-wasm kernels
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
      // 4 GiB: a shared memory must say how large it may become.
      "--maximumMemory",
      "65536",
      // Constants come first, behind address 0, which stands for what is absent.
      "--memoryBase",
      "16",
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

/**
 * Where the byte is that says whether the imported memory is shared: behind the names of the import. 1 is a memory
 * with a maximum, 3 a shared one.
 * @param {Uint8Array} binary
 */
function sharedFlagOffset(binary) {
  const name = Buffer.from("\x03env\x06memory\x02", "latin1");
  const offset = Buffer.from(binary).indexOf(name) + name.length;
  if (offset < name.length || binary[offset] !== 1) throw new Error("the module does not import env.memory");
  return offset;
}

/**
 * Where the constants end that the module puts into memory.
 * @param {Uint8Array<ArrayBuffer>} binary
 */
async function dataEnd(binary) {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
  const { instance } = await WebAssembly.instantiate(binary, { env: { memory } });
  return instance.exports.dataEnd.value;
}

/** The text of src/modules.generated.ts, as it has to be. */
export async function generateModules() {
  const plain = await compile("simd");
  const constantsEnd = await dataEnd(plain);
  const relaxed = await compile("relaxed-simd");
  const worker = await readFile(resolve(folder, "worker/worker.js"), "utf8");
  // Comments and indentation stay out of the package.
  const lines = worker.split("\n").map((line) => line.trim());
  const code = lines.filter((line) => line !== "" && !/^(\/\/|\/\*|\*)/.test(line)).join("\n");
  return `// Made from assembly/ and worker/ by compile-kernels.mjs; a test compares the two.

/** A build of the kernels. */
export interface EmbeddedModule {
  /** The module, in base64. */
  readonly base64: string;
  /** Where its byte is that says whether the memory it imports is shared: 1 no, 3 yes. */
  readonly sharedFlagOffset: number;
}

export const plainModule: EmbeddedModule = {
  base64:
    "${Buffer.from(plain).toString("base64")}",
  sharedFlagOffset: ${sharedFlagOffset(plain)},
};

/** The same with relaxed SIMD: fused multiply-add. */
export const relaxedModule: EmbeddedModule = {
  base64:
    "${Buffer.from(relaxed).toString("base64")}",
  sharedFlagOffset: ${sharedFlagOffset(relaxed)},
};

/** Memory below this address holds constants of the kernels, of either build. */
export const constantsEnd: number = ${constantsEnd};

/** What a worker thread runs. */
export const workerSource: string =
  '${code.replace(/[\\']/g, "\\$&").replaceAll("\n", "\\n")}';
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(generated, await generateModules());
}
