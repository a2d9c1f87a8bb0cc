// Every way in which the CUDA backend can do an op, measured beside what its model of costs expects and chooses:
// node benchmarks/cuda-tune.mjs --out FOLDER [--sizes all|tiny] [--only TEXT] [--samples N] [--device N] [--binary FILE]
// [--origin FILE]
//
// Writes tune.json after each case, and tune.txt: the rates of the device, a line for each case, and the rates that the
// model should have (native/ops/expert_costs.h) with what they would change. --from N does the parts from there on, and
// tells of them as runParts wants it.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cuda, deviceSizes } from "@flash-moe/backend-cuda";
import { readCommandLine, refuse, takeNumber, takeOne } from "../tools/lib/command-line.mjs";
import { runParts } from "../tools/lib/run-parts.mjs";
import { serveParts } from "../tools/lib/serve-parts.mjs";
import { writeJson } from "../tools/lib/write-json.mjs";
import { about } from "./cuda/about.mjs";
import { measureRates } from "./cuda/measure.mjs";
import { measureCase } from "./cuda/tune-case.mjs";
import { gatherRates, launchCosts } from "./cuda/tune-device.mjs";
import { report as reportText } from "./cuda/tune-report.mjs";
import { isHoppers, tuneCases } from "./cuda/tune-ways.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  sizes: { type: "string", default: "all" },
  only: { type: "string", default: "" },
  samples: { type: "string", default: "7" },
  device: { type: "string", default: "0" },
  binary: { type: "string" },
  origin: { type: "string" },
  from: { type: "string" },
});
const out = options.out ?? refuse("--out FOLDER is needed");
const cases = takeOne("--sizes", options.sizes, tuneCases);
const samples = takeNumber("--samples", options.samples);
const device = takeNumber("--device", options.device, { from: 0 });
mkdirSync(out, { recursive: true });
const file = join(out, "tune.json");
const table = join(out, "tune.txt");
const tiny = options.sizes === "tiny";
const open = (more = {}) => cuda.open({ device, binary: options.binary, ...more });

// Twice through all: the ways by Hopper's instruction at the end.
const steps = [false, true].flatMap((hoppers) =>
  cases.map((size) => {
    const ways = size.ways.filter((way) => isHoppers(way) === hoppers);
    return { name: `${size.name}${hoppers ? " by wgmma" : ""}`, size, ways };
  }),
);
const wanted = steps.filter(({ name, ways }) => name.includes(options.only) && ways.length > 0);
/** Of a case with all its ways. */
const silence = 30;

if (options.from === undefined) await runAll();
else await runFrom(Number(options.from));

/** @param {number} first */
async function runFrom(first) {
  /** @type {Record<string, number> | undefined} those that were measured, in this process or in the one before */
  let rates = first === 0 ? undefined : readResult()?.suggested;
  /** @type {import("@flash-moe/core").Backend | undefined} */
  let backend;
  /** @type {() => void} */
  let flush = () => {};
  const openOnce = async () => {
    if (backend !== undefined) return backend;
    const opened = await open({ graphs: false });
    const spare = [0, 1].map(() => opened.alloc("f32", (tiny ? 2 ** 16 : 2 ** 28) / 4));
    flush = () => opened.copy(spare[0], spare[1]);
    backend = opened;
    return opened;
  };
  const device = {
    name: "the rates of the device",
    async run() {
      const found = await measureDevice();
      rates = found.suggested;
      return found;
    },
  };
  const parts = wanted.map(({ name, size, ways }) => ({
    name,
    // What other rates would choose is known from the first time.
    run: async () =>
      measureCase(await openOnce(), flush, size, ways, samples, name === size.name ? rates : undefined),
  }));
  await serveParts([device, ...parts], first, async () => backend?.dispose());
}

/** @returns {import("./cuda/tune-report.mjs").TuneResult | undefined} */
function readResult() {
  return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
}

async function runAll() {
  /** @type {import("./cuda/tune-report.mjs").TuneResult} */
  const report = { about: about(options.origin), complete: false, cases: [], errors: [] };
  const write = () => {
    writeJson(file, report);
    writeFileSync(table, `${reportText(report)}\n`);
  };
  const summary = await runParts({
    command: process.execPath,
    args: [fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    silence,
    onResult: (name, { error, ...result }) => {
      process.stderr.write(`${name}${error === undefined ? "" : `: ${error}`}\n`);
      if (error !== undefined) report.errors.push({ name, error });
      else if ("rates" in result) Object.assign(report, result);
      else report.cases.push({ ...result, name });
      write();
    },
  });
  report.complete = summary.complete;
  for (const problem of summary.problems) report.errors.push({ name: "between cases", error: problem });
  write();
  process.stderr.write(`${reportText(report)}\n`);
  process.exitCode = report.complete && report.errors.length === 0 ? 0 : 1;
}

async function measureDevice() {
  const backend = await open({ graphs: false });
  const withGraphs = await open();
  const sizes = deviceSizes(backend);
  const rates = await measureRates(backend, tiny ? 64 : 8192, tiny ? 2 ** 16 : 2 ** 29);
  const gathers = await gatherRates(backend, tiny);
  const launches = await launchCosts(backend, withGraphs, tiny);
  const { device } = backend;
  await withGraphs.dispose();
  await backend.dispose();
  const fastest = Math.max(...gathers.map(({ bytesPerSecond }) => bytesPerSecond));
  const suggested = {
    memory: rates.copy,
    cache: fastest,
    tensor: rates.matmul.bf16 / sizes.multiprocessors,
    plain: rates.matmul.f32 / sizes.multiprocessors,
    launch: launches.plain.deviceMicroseconds / 1e6,
  };
  return { device, ...sizes, rates, gathers, launches, suggested };
}
