import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "vitest";
import { itOnShim as it, shimBinary } from "./helpers/shim.js";

const tools = fileURLToPath(new URL("../../../tools/", import.meta.url));

/** What a script of the bundle for GPUs prints, on the shim. */
async function run<Result>(script: string, ...options: string[]): Promise<Result> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [`${tools}gpu-bundle/${script}`, ...options],
    {
      env: { ...process.env, FLASH_MOE_BUNDLE_BINARY: shimBinary() },
      maxBuffer: 2 ** 26,
    },
  );
  return JSON.parse(stdout) as Result;
}

it("agrees with PyTorch on whole layers, forward and backward", async () => {
  const options = ["--backend", "cuda", "--folder", `${tools}goldens/data`];
  const { rows } = await run<{ rows: { file: string; failed: string[] }[] }>("goldens.mjs", ...options);
  expect(rows.length).toBeGreaterThan(40);
  expect(rows.filter(({ failed }) => failed.length > 0)).toEqual([]);
});

it("learns as the reference does: the first 20 losses", async () => {
  const { ours, expected } = await run<{ ours: number[]; expected: number[] }>("training.mjs");
  expect(ours).toHaveLength(20);
  expect(Math.min(...ours)).toBeLessThan(ours[0]);
  for (const [step, loss] of ours.entries()) {
    expect(Math.abs(loss - expected[step]), `step ${step}`).toBeLessThan(1e-3);
  }
});
