import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect } from "vitest";
import { itOnShim as it, shimBinary } from "./helpers/shim.js";

const tools = fileURLToPath(new URL("../../../tools/", import.meta.url));

it("agrees with PyTorch on whole layers, forward and backward", async () => {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [`${tools}gpu-bundle/goldens.mjs`, "--backend", "cuda", "--folder", `${tools}goldens/data`],
    { env: { ...process.env, FLASH_MOE_BUNDLE_BINARY: shimBinary() }, maxBuffer: 2 ** 26 },
  );
  const { layers, rows } = JSON.parse(stdout) as { layers: number; rows: { file: string; failed: string[] }[] };
  expect(layers).toBeGreaterThan(40);
  expect(rows.filter(({ failed }) => failed.length > 0)).toEqual([]);
});
