// flash-moe bench, one preset after the other: node bench.mjs COMMAND BACKEND SECONDS PRESET...
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { clocks } from "./nvidia-smi.mjs";

const [command, name, seconds, ...presets] = process.argv.slice(2);
const backend = name === "cuda" ? fileURLToPath(new URL("cuda-provider.mjs", import.meta.url)) : name;
const isShim = Boolean(process.env.FLASH_MOE_BUNDLE_BINARY);
const results = {};
let failed = false;
for (const preset of isShim ? ["small"] : presets) {
  const before = clocks();
  const run = spawnSync(
    process.execPath,
    [
      command,
      "bench",
      "--backend",
      backend,
      "--preset",
      preset,
      "--seconds",
      isShim ? "0.01" : seconds,
      "--json",
    ],
    { encoding: "utf8", maxBuffer: 2 ** 26 },
  );
  process.stderr.write(run.stderr);
  failed ||= run.status !== 0;
  results[preset] =
    run.status === 0 ? { before, after: clocks(), ...JSON.parse(run.stdout) } : { error: run.stderr };
}
console.log(JSON.stringify(results, undefined, 2));
process.exitCode = failed ? 1 : 0;
