import { execFile, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "vitest";
import { buildShim, itOnShim as it } from "./helpers/shim.js";

it("reads and writes nothing that is not its own, and has no undefined behaviour", {
  timeout: 1_800_000,
}, async () => {
  const shim = buildShim(true);
  if ("reason" in shim) throw new Error(shim.reason);
  const libasan = spawnSync("g++", ["-print-file-name=libasan.so"], { encoding: "utf8" }).stdout.trim();
  const script = fileURLToPath(new URL("helpers/run-conformance.mjs", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, shim.binary, ""], {
    env: {
      ...process.env,
      // The process is not built with it, so it has to be there first. Node itself leaks when it ends.
      LD_PRELOAD: libasan,
      ASAN_OPTIONS: "detect_leaks=0",
      UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
    },
    maxBuffer: 2 ** 26,
  });
  const result = JSON.parse(stdout);
  expect(result.failures).toEqual([]);
  expect(result.passed).toBeGreaterThan(600);
});
