// The CUDA backend at upstream's sizes and the paper's: node benchmarks/cuda.mjs --out FOLDER [--sizes all|peers|first|tiny]
// [--only TEXT] [--seconds S] [--device N] [--binary FILE] [--origin FILE]
//
// Writes cuda.json after each case, and for each a file of its tensors and of what was computed: cuda_peers.py measures
// others on the same tensors and compares. --from N does the parts from there on, and tells of them as runParts wants it.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cuda } from "@flash-moe/backend-cuda";
import { readCommandLine, refuse, takeNumber, takeOne } from "../tools/lib/command-line.mjs";
import { runParts } from "../tools/lib/run-parts.mjs";
import { serveParts } from "../tools/lib/serve-parts.mjs";
import { writeJson } from "../tools/lib/write-json.mjs";
import { about } from "./cuda/about.mjs";
import { forwardFloor, nameOf, sizes } from "./cuda/cases.mjs";
import { measureCall, measureRates } from "./cuda/measure.mjs";
import { writeOnce } from "./cuda/tensors.mjs";
import { inputsOf, sharedName, workOf, writeResults } from "./cuda/work.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  sizes: { type: "string", default: "all" },
  only: { type: "string", default: "" },
  seconds: { type: "string", default: "1" },
  device: { type: "string", default: "0" },
  binary: { type: "string" },
  origin: { type: "string" },
  from: { type: "string" },
});
const out = options.out ?? refuse("--out FOLDER is needed");
const all = takeOne("--sizes", options.sizes, sizes);
const seconds = takeNumber("--seconds", options.seconds, { fraction: true });
const device = takeNumber("--device", options.device, { from: 0 });
const cases = all.filter((size) => nameOf(size).includes(options.only));
const folder = join(out, "tensors");
mkdirSync(folder, { recursive: true });
const tiny = options.sizes === "tiny";
const flushBytes = tiny ? 2 ** 16 : 2 ** 29;
/** Of a case, its tensors made and written and its calls measured: a GPU that hangs is not waited for longer. */
const silence = 30;

if (options.from === undefined) await runAll();
else await runFrom(Number(options.from));

/** @param {number} first */
async function runFrom(first) {
  const rates = {
    name: "rates",
    run: () =>
      withBackend(async (backend) => ({
        device: backend.device,
        rates: await measureRates(backend, tiny ? 64 : 8192, flushBytes),
      })),
  };
  const parts = cases.map((size) => ({
    name: nameOf(size),
    run: () => withBackend((backend) => measure(backend, size, nameOf(size))),
  }));
  await serveParts([rates, ...parts], first);
}

async function runAll() {
  const report = {
    device: "",
    about: about(options.origin),
    rates: null,
    complete: false,
    problems: [],
    rows: [],
  };
  const file = join(out, "cuda.json");
  const byName = new Map(cases.map((size) => [nameOf(size), size]));
  const summary = await runParts({
    command: process.execPath,
    args: [fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    silence,
    onResult: (name, { device, ...result }) => {
      report.device = device ?? report.device;
      const size = byName.get(name);
      if (size === undefined) {
        report.rates = result.rates ?? null;
        if (result.error !== undefined) report.problems.push(`rates: ${result.error}`);
      } else {
        const floor = report.rates === null ? null : 1e6 * forwardFloor(size, report.rates);
        report.rows.push({ name, ...size, forwardFloorMicroseconds: floor, ...result });
      }
      process.stderr.write(`${name}${result.error === undefined ? "" : `: ${result.error}`}\n`);
      writeJson(file, report);
    },
  });
  report.complete = summary.complete;
  report.problems.push(...summary.problems);
  writeJson(file, { ...report, gpusAfter: about(undefined).gpus });
  for (const problem of report.problems) process.stderr.write(`${problem}\n`);
  const failed = report.rows.filter((row) => "error" in row).length;
  process.stderr.write(`${report.rows.length} of ${cases.length} cases, ${failed} failed\n`);
  process.exitCode = report.complete && report.problems.length === 0 && failed === 0 ? 0 : 1;
}

/** @template Result @param {(backend: import("@flash-moe/core").Backend) => Promise<Result>} use */
async function withBackend(use) {
  const backend = await cuda.open({ device, binary: options.binary });
  try {
    return await use(backend);
  } finally {
    await backend.dispose();
  }
}

/** @param {import("@flash-moe/core").Backend} backend @param {import("./cuda/cases.mjs").Case} size @param {string} name */
async function measure(backend, size, name) {
  const { own, shared } = inputsOf(size);
  const hasShared = Object.keys(shared).length > 0;
  await writeOnce(folder, name, own);
  if (hasShared) await writeOnce(folder, sharedName(size), shared);
  /** @type {Record<string, import("@flash-moe/core").Tensor>} */
  const inputs = {};
  for (const [key, { values, shape, dtype }] of Object.entries({ ...own, ...shared })) {
    inputs[key] = backend.upload(values, shape, dtype, key);
  }
  const inputBytes = backend.memory().liveBytes;
  const work = workOf(backend, size, inputs);
  for (const call of Object.values(work.calls)) call();
  await backend.sync();
  const { peakBytes } = backend.memory();
  await writeResults(folder, name, work);
  const spare = [0, 1].map(() => backend.alloc("f32", flushBytes / 4));
  const flush = () => backend.copy(spare[0], spare[1]);
  /** @type {Record<string, object>} */
  const microseconds = {};
  for (const [call, enqueue] of Object.entries(work.calls)) {
    microseconds[call] = await measureCall(backend, flush, enqueue, seconds);
  }
  return {
    device: backend.device,
    tensors: `${name}.safetensors`,
    ours: `${name}.ours.safetensors`,
    tables: hasShared ? `${sharedName(size)}.safetensors` : undefined,
    microseconds,
    inputBytes,
    peakBytes,
  };
}
