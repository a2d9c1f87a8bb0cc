import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect } from "vitest";
import { itOnShim as it, shimBinary } from "./helpers/shim.js";

const tools = fileURLToPath(new URL("../../../tools/", import.meta.url));

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "flash-moe-layers-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What a script of the bundle for GPUs prints, on the shim. */
async function run(script: string, ...options: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [`${tools}gpu-bundle/${script}`, ...options],
    { env: { ...process.env, FLASH_MOE_BUNDLE_BINARY: shimBinary() } },
  );
  return stdout;
}

it("agrees with PyTorch on whole layers, forward and backward", async () => {
  const out = join(directory, "goldens.json");
  await run("goldens.mjs", "--out", out, "--backend", "cuda", "--folder", `${tools}goldens/data`);
  const { rows, complete } = JSON.parse(readFileSync(out, "utf8"));
  expect(complete).toBe(true);
  expect(rows.length).toBeGreaterThan(40);
  expect(rows.filter(({ failed }: { failed: string[] }) => failed.length > 0)).toEqual([]);
});

it("learns as the reference does: the first 20 losses", async () => {
  const { ours, expected }: Record<string, number[]> = JSON.parse(await run("training.mjs"));
  expect(ours).toHaveLength(20);
  expect(Math.min(...ours)).toBeLessThan(ours[0]);
  for (const [step, loss] of ours.entries()) {
    expect(Math.abs(loss - expected[step]), `step ${step}`).toBeLessThan(1e-3);
  }
});
