import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

/** Whether this is the system that @sparticuz/chromium is made for. */
export const isProvided: boolean = process.platform === "linux" && process.arch === "x64";

interface Unpacked {
  readonly executable: string;
  /** Libraries that a small system lacks. */
  readonly libraries: string;
  /** SwiftShader and the Vulkan loader, beside the browser, where it looks for them. */
  readonly folder: string;
}

/** Unpacks the browser, its libraries and SwiftShader, once, into node_modules/.cache. */
export function unpackChromium(): Unpacked {
  const require = createRequire(import.meta.url);
  const entry = require.resolve("@sparticuz/chromium");
  const packageFolder = join(entry.slice(0, entry.lastIndexOf("chromium/build")), "chromium");
  const { version } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
  const here = dirname(fileURLToPath(import.meta.url));
  const folder = join(here, `node_modules/.cache/chromium-${version}`);
  const unpacked = { folder, executable: join(folder, "chromium"), libraries: join(folder, "lib") };
  if (existsSync(folder)) return unpacked;
  // Another process may be doing the same: the folder appears whole or not at all.
  const partial = `${folder}.${process.pid}`;
  mkdirSync(join(partial, "lib"), { recursive: true });
  const read = (name: string): Buffer => brotliDecompressSync(readFileSync(join(packageFolder, "bin", name)));
  writeFileSync(join(partial, "chromium"), read("chromium.br"));
  chmodSync(join(partial, "chromium"), 0o755);
  for (const archive of ["al2023.tar.br", "swiftshader.tar.br"]) {
    for (const [name, contents] of filesOfTar(read(archive))) writeFileSync(join(partial, name), contents);
  }
  try {
    renameSync(partial, folder);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(folder)) throw error;
  }
  return unpacked;
}

/** The Vulkan loader, and the description of the driver that VK_ICD_FILENAMES takes. */
export function swiftShader(): { readonly loader: string; readonly driver: string } {
  const { folder } = unpackChromium();
  return { loader: join(folder, "libvulkan.so.1"), driver: join(folder, "vk_swiftshader_icd.json") };
}

/** Name and contents of every file: headers of 512 bytes with name and octal size, contents padded to 512. */
function* filesOfTar(archive: Buffer): Generator<[name: string, contents: Buffer]> {
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0; ) {
    const text = (start: number, length: number): string =>
      archive.toString("latin1", at + start, at + start + length).replace(/\0.*$/s, "");
    const size = Number.parseInt(text(124, 12), 8);
    const isFile = text(156, 1) === "" || text(156, 1) === "0";
    if (isFile) yield [text(0, 100), archive.subarray(at + 512, at + 512 + size)];
    at += 512 + 512 * Math.ceil(size / 512);
  }
}
