import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

/** Whether there is a Chromium that comes from npm alone for this system. */
export const hasChromium: boolean = process.platform === "linux" && process.arch === "x64";

/** A running Chromium. */
export interface Chromium {
  /** Rejects when it ends by itself, with what it said. */
  readonly ended: Promise<never>;
  close(): Promise<void>;
}

/** Opens `url` in a headless Chromium with WebGPU on SwiftShader, the one of the package @sparticuz/chromium. */
export function openInChromium(url: string): Chromium {
  const profile = mkdtempSync(join(tmpdir(), "flash-moe-chromium-"));
  const { executable, libraries } = unpack();
  const child = spawn(
    executable,
    [
      "--headless=new",
      "--no-sandbox",
      "--no-zygote",
      "--enable-unsafe-webgpu",
      "--use-webgpu-adapter=swiftshader",
      "--disable-dev-shm-usage",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
      url,
    ],
    { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, LD_LIBRARY_PATH: libraries } },
  );
  return {
    ended: endOf(child),
    async close() {
      child.removeAllListeners();
      if (child.exitCode === null && child.signalCode === null) {
        const exited = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGKILL");
        await exited;
      }
      // Its own processes may still be writing there.
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
}

function endOf(child: ChildProcess): Promise<never> {
  let said = "";
  child.stderr?.on("data", (text) => {
    said += text;
  });
  return new Promise((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) => reject(new Error(`Chromium ended (${code ?? signal}): ${said}`)));
  });
}

/** Unpacks the browser once into node_modules/.cache, with libraries that a small system lacks. */
function unpack(): { executable: string; libraries: string } {
  const require = createRequire(import.meta.url);
  const entry = require.resolve("@sparticuz/chromium");
  const packageFolder = join(entry.slice(0, entry.lastIndexOf("chromium/build")), "chromium");
  const { version } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
  const here = dirname(fileURLToPath(import.meta.url));
  const folder = join(here, `../../node_modules/.cache/chromium-${version}`);
  const unpacked = { executable: join(folder, "chromium"), libraries: join(folder, "lib") };
  if (existsSync(folder)) return unpacked;
  // Another process may be doing the same: the folder appears whole or not at all.
  const partial = `${folder}.${process.pid}`;
  mkdirSync(join(partial, "lib"), { recursive: true });
  const read = (name: string): Buffer => brotliDecompressSync(readFileSync(join(packageFolder, "bin", name)));
  writeFileSync(join(partial, "chromium"), read("chromium.br"), { mode: 0o755 });
  for (const [name, contents] of filesOfTar(read("al2023.tar.br")))
    writeFileSync(join(partial, name), contents);
  // Chromium looks for its drivers beside itself.
  for (const [name, contents] of filesOfTar(read("swiftshader.tar.br")))
    writeFileSync(join(partial, name), contents, { mode: 0o755 });
  try {
    renameSync(partial, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
    rmSync(partial, { recursive: true, force: true });
  }
  return unpacked;
}

/** Name and contents of every file: headers of 512 bytes with name and octal size, contents padded to 512. */
function* filesOfTar(archive: Buffer): Generator<[name: string, contents: Buffer]> {
  for (let at = 0; archive[at] !== 0; ) {
    const name = archive.toString("latin1", at, archive.indexOf(0, at));
    const size = Number.parseInt(archive.toString("latin1", at + 124, at + 136), 8);
    at += 512;
    if (!name.endsWith("/")) yield [name, archive.subarray(at, at + size)];
    at += 512 * Math.ceil(size / 512);
  }
}
