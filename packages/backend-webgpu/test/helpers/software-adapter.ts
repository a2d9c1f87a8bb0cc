import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

/** Whether `provideSoftwareAdapter` can provide one. */
export const hasSoftwareAdapter: boolean = process.platform === "linux" && process.arch === "x64";

/**
 * Gives Dawn a software adapter that comes from npm alone: SwiftShader and the Vulkan loader, as the package
 * @sparticuz/chromium carries them, unpacked once into node_modules/.cache. Does nothing where the environment names a
 * driver already, or on another system than the one that those libraries are for. To be called before Dawn is loaded.
 */
export function provideSoftwareAdapter(): void {
  if (!hasSoftwareAdapter) return;
  if (process.env.VK_ICD_FILENAMES || process.env.VK_DRIVER_FILES) return;
  const folder = unpackLibraries();
  process.env.VK_ICD_FILENAMES = join(folder, "vk_swiftshader_icd.json");
  keepLoaded(join(folder, "libvulkan.so.1"));
}

/**
 * Loads a library for good, so that a later dlopen of its name finds it: LD_LIBRARY_PATH would have to be set before
 * the process starts. It is no addon, which Node says after it was loaded, and RTLD_NODELETE outlives.
 */
function keepLoaded(file: string): void {
  const nodelete = 0x1000;
  try {
    process.dlopen({ exports: {} }, file, constants.dlopen.RTLD_NOW | nodelete);
  } catch (error) {
    if (!String(error).includes("did not self-register")) throw error;
  }
}

function unpackLibraries(): string {
  const require = createRequire(import.meta.url);
  const entry = require.resolve("@sparticuz/chromium");
  const packageFolder = entry.slice(0, entry.lastIndexOf("chromium/build"));
  const archive = join(packageFolder, "chromium/bin/swiftshader.tar.br");
  const version = JSON.parse(readFileSync(join(packageFolder, "chromium/package.json"), "utf8")).version;
  const here = dirname(fileURLToPath(import.meta.url));
  const folder = join(here, `../../node_modules/.cache/swiftshader-${version}`);
  mkdirSync(folder, { recursive: true });
  const wanted = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];
  if (wanted.every((name) => existsSync(join(folder, name)))) return folder;
  const files = untar(brotliDecompressSync(readFileSync(archive)));
  for (const name of wanted) {
    const bytes = files.get(name);
    if (bytes === undefined) throw new Error(`${archive} has no ${name}`);
    // Another process may be doing the same: a file appears whole or not at all.
    const target = join(folder, name);
    writeFileSync(`${target}.${process.pid}`, bytes);
    renameSync(`${target}.${process.pid}`, target);
  }
  return folder;
}

/** The files of a tar archive by name: 512-byte headers with name and octal size, contents padded to 512. */
function untar(archive: Buffer): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0; ) {
    const name = archive.toString("latin1", at, at + 100).replace(/\0.*$/s, "");
    const size = Number.parseInt(archive.toString("latin1", at + 124, at + 136), 8);
    files.set(name.replace(/^\.\//, ""), archive.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
}
