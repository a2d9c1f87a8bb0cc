import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unpackChromium } from "./unpack.js";

interface Chromium {
  /** Rejects when it ends by itself, with what it said. */
  readonly ended: Promise<never>;
  close(): Promise<void>;
}

/** Opens `url` in a headless Chromium, the one of the package @sparticuz/chromium. */
export function openInChromium(url: string, flags: readonly string[]): Chromium {
  const profile = mkdtempSync(join(tmpdir(), "flash-moe-chromium-"));
  const { executable, libraries } = unpackChromium();
  const child = spawn(
    executable,
    [
      "--headless=new",
      "--no-sandbox",
      "--no-zygote",
      "--disable-dev-shm-usage",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
      ...flags,
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
