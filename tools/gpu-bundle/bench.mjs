// flash-moe bench, one preset after the other: node bench.mjs --out FILE --command FLASH-MOE --backend cuda|webgpu
// --seconds S --preset NAME [--preset NAME]. FILE is written after each. --from N does those from there on, and tells of
// them as runParts wants it.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { readCommandLine } from "../lib/command-line.mjs";
import { runParts } from "../lib/run-parts.mjs";
import { serveParts } from "../lib/serve-parts.mjs";
import { writeJson } from "../lib/write-json.mjs";
import { clocks } from "./nvidia-smi.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string", default: "bench.json" },
  command: { type: "string", default: "" },
  backend: { type: "string", default: "cuda" },
  seconds: { type: "string", default: "1" },
  preset: { type: "string", multiple: true, default: [] },
  from: { type: "string" },
});
const isShim = Boolean(process.env.FLASH_MOE_BUNDLE_BINARY);
if (options.from === undefined) await runAll();
else await serveParts((isShim ? ["small"] : options.preset).map(partOf), Number(options.from));

/** @param {string} preset */
function partOf(preset) {
  const provider = fileURLToPath(new URL("cuda-provider.mjs", import.meta.url));
  const args = [
    ...[options.command, "bench", "--preset", preset, "--json"],
    ...["--backend", options.backend === "cuda" ? provider : options.backend],
    ...["--seconds", isShim ? "0.01" : options.seconds],
  ];
  return {
    name: preset,
    run() {
      const before = clocks();
      const run = spawnSync(process.execPath, args, { encoding: "utf8", maxBuffer: 2 ** 26 });
      if (run.status !== 0) throw new Error(run.stderr);
      return { before, after: clocks(), ...JSON.parse(run.stdout) };
    },
  };
}

async function runAll() {
  /** @type {Record<string, { error?: string }>} */
  const results = {};
  const { complete, problems } = await runParts({
    command: process.execPath,
    args: [fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    silence: 60,
    onResult: (name, result) => {
      results[name] = result;
      if (result.error !== undefined) console.error(`${name}: ${result.error}`);
      writeJson(options.out, results);
    },
  });
  for (const problem of problems) console.error(problem);
  const isWell = Object.values(results).every(({ error }) => error === undefined);
  process.exitCode = complete && problems.length === 0 && isWell ? 0 : 1;
}
