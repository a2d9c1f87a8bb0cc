// Every way in which the CUDA backend can do an op, measured beside what its model of costs expects and chooses:
// node benchmarks/cuda-tune.mjs --out FOLDER [--sizes all|tiny] [--only TEXT] [--samples N] [--device N] [--binary FILE]
//
// Writes tune.json after each case, and tune.txt: the rates of the device, a line for each case, and the rates that the
// model should have (native/ops/expert_costs.h) with what they would change.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cuda, deviceSizes } from "@flash-moe/backend-cuda";
import { goOnAfter, isLoss } from "./cuda/go-on.mjs";
import { measureRates } from "./cuda/measure.mjs";
import { measureCase } from "./cuda/tune-case.mjs";
import { gatherRates, launchCosts } from "./cuda/tune-device.mjs";
import { report } from "./cuda/tune-report.mjs";
import { isHoppers, tuneCases } from "./cuda/tune-ways.mjs";

const { values: options } = parseArgs({
  options: {
    out: { type: "string" },
    sizes: { type: "string", default: "all" },
    only: { type: "string", default: "" },
    samples: { type: "string", default: "7" },
    device: { type: "string", default: "0" },
    binary: { type: "string" },
    after: { type: "string" },
  },
});
const cases = tuneCases[/** @type {keyof typeof tuneCases} */ (options.sizes)];
if (options.out === undefined || cases === undefined) {
  console.error(`--out FOLDER is needed; --sizes takes ${Object.keys(tuneCases).join(" or ")}`);
  process.exit(2);
}
mkdirSync(options.out, { recursive: true });
const file = join(options.out, "tune.json");
const table = join(options.out, "tune.txt");
const tiny = options.sizes === "tiny";
const open = (more = {}) => cuda.open({ device: Number(options.device), binary: options.binary, ...more });

/** @type {import("./cuda/tune-report.mjs").TuneResult} */
const result =
  options.after !== undefined && existsSync(file)
    ? JSON.parse(readFileSync(file, "utf8"))
    : await measureDevice();

// Twice through all: the ways by Hopper's instruction at the end.
const steps = [false, true].flatMap((hoppers) =>
  cases.map((size) => {
    const ways = size.ways.filter((way) => isHoppers(way) === hoppers);
    return { name: `${size.name}${hoppers ? " by wgmma" : ""}`, size, ways };
  }),
);
let reached = options.after === undefined;
const backend = await open({ graphs: false });
const spare = [0, 1].map(() => backend.alloc("f32", (tiny ? 2 ** 16 : 2 ** 28) / 4));
const flush = () => backend.copy(spare[0], spare[1]);
for (const { name, size, ways } of steps) {
  if (!reached) {
    reached = name === options.after;
    continue;
  }
  if (!name.includes(options.only) || ways.length === 0) continue;
  process.stderr.write(`${name}\n`);
  let lost = false;
  try {
    const samples = Number(options.samples);
    // What other rates would choose is known from the first time.
    const rates = name === size.name ? result.suggested : undefined;
    result.cases.push({ ...(await measureCase(backend, flush, size, ways, samples, rates)), name });
  } catch (error) {
    process.stderr.write(`${name}: ${error instanceof Error ? error.message : error}\n`);
    result.errors.push({ name, error: error instanceof Error ? error.message : String(error) });
    lost = isLoss(error);
  }
  write();
  if (lost) goOnAfter(name);
}
await backend.dispose();
process.stderr.write(`${report(result)}\n`);
process.exitCode = result.errors.length > 0 ? 1 : 0;

/** After each case: a run that is cut short leaves what it has. */
function write() {
  writeFileSync(file, `${JSON.stringify(result, undefined, 1)}\n`);
  writeFileSync(table, `${report(result)}\n`);
}

async function measureDevice() {
  const backend = await open({ graphs: false });
  const withGraphs = await open();
  const sizes = deviceSizes(backend);
  process.stderr.write(`the rates of ${backend.device}\n`);
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
  return {
    device,
    ...sizes,
    node: process.version,
    rates,
    gathers,
    launches,
    suggested,
    cases: [],
    errors: [],
  };
}
