import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));

function run(script: string, args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, script), ...args], {
    encoding: "utf8",
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

/** Each with a command line that it cannot take, and what it says of it. */
const scripts: [script: string, wrong: readonly string[], says: RegExp][] = [
  ["benchmarks/scaling.mjs", ["reference", "7"], /^scaling.mjs: 7 is one argument too many \(/],
  ["benchmarks/scaling.mjs", ["nothing"], /^scaling.mjs: .*nothing/],
  ["benchmarks/wasm.mjs", ["4"], /^wasm.mjs: sizes is 4; takes numbers from 0 to 3, as in 0,2 \(/],
  ["benchmarks/wasm.mjs", ["0,", "1"], /^wasm.mjs: sizes is 0,; takes/],
  ["benchmarks/webgpu.mjs", ["0", "none"], /^webgpu.mjs: rounds is none; takes a whole number from 1 \(/],
  ["benchmarks/cuda.mjs", [], /^cuda.mjs: --out FOLDER is needed \(/],
  [
    "benchmarks/cuda.mjs",
    ["--out", "x", "--sizes", "toString"],
    /^cuda.mjs: --sizes is toString; takes all or/,
  ],
  [
    "benchmarks/cuda.mjs",
    ["--out", "x", "--seconds", "soon"],
    /^cuda.mjs: --seconds is soon; takes a number/,
  ],
  ["benchmarks/cuda-tune.mjs", ["--out", "x", "--samples", "0"], /^cuda-tune.mjs: --samples is 0; takes/],
  ["benchmarks/cuda-peers.mjs", ["--outt", "x"], /^cuda-peers.mjs: Unknown option '--outt'/],
  [
    "tools/verify-in-browser.mjs",
    ["--backend", "tpu"],
    /^verify-in-browser.mjs: --backend is tpu; takes one/,
  ],
  ["tools/gpu-bundle.mjs", ["now"], /^gpu-bundle.mjs: Unexpected argument 'now'/],
  ["tools/gpu-bundle/bench.mjs", ["--seconds"], /^bench.mjs: Option '--seconds <value>' argument missing/],
  [
    "tools/gpu-bundle/conformance.mjs",
    ["--backend", "tpu"],
    /^conformance.mjs: --backend is tpu; takes cuda/,
  ],
  ["tools/gpu-bundle/goldens.mjs", [], /^goldens.mjs: --backend NAME is needed \(/],
  ["tools/gpu-bundle/repeatability.mjs", ["--no"], /^repeatability.mjs: Unknown option '--no'/],
  ["tools/gpu-bundle/device.mjs", [], /^device.mjs: cuda\|webgpu is missing \(/],
  ["tools/gpu-bundle/machine.mjs", [], /^machine.mjs: ORIGIN is missing \(/],
  ["tools/gpu-bundle/table.mjs", [], /^table.mjs: RESULTS is missing \(/],
  ["tools/gpu-bundle/sanitizer.mjs", ["memcheck"], /^sanitizer.mjs: SECONDS is missing \(/],
  ["tools/gpu-bundle/summary.mjs", ["a", "b"], /^summary.mjs: GPU is missing \(/],
  ["packages/backend-cuda/build.mjs", ["--jobs", "many"], /^build.mjs: --jobs is many; takes a whole number/],
  ["packages/backend-webgpu/tools/embed-kernels.mjs", ["--chek"], /^embed-kernels.mjs: Unknown option/],
];

it.each(scripts)("%s refuses %j in one line", (script, wrong, says) => {
  const { status, stdout, stderr } = run(script, wrong);
  expect(stderr).toMatch(says);
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stdout).toBe("");
  expect(status).toBe(2);
});

it.each([...new Set(scripts.map(([script]) => script))])("%s --help says what it takes", (script) => {
  const { status, stdout, stderr } = run(script, ["--help"]);
  expect(stderr).toBe("");
  expect(stdout).not.toMatch(/^(\/\/|import )/m);
  expect(stdout).toMatch(/pnpm|node /);
  expect(status).toBe(0);
});

it("a bundle is not packed over other things", () => {
  const folder = mkdtempSync(join(tmpdir(), "flash-moe-bundle-"));
  try {
    writeFileSync(join(folder, "thesis.txt"), "the only copy");
    const { status, stderr } = run("tools/gpu-bundle.mjs", ["--out", folder]);
    expect(stderr).toContain("has other things in it");
    expect(status).toBe(2);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
