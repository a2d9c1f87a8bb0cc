// The CUDA backend at upstream's sizes and the paper's: node benchmarks/cuda.mjs --out FOLDER [--sizes all|tiny]
// [--only TEXT] [--seconds S] [--device N] [--binary FILE]
//
// Writes cuda.json, and for each case a file of its tensors and of what was computed: cuda_peers.py measures others on
// the same tensors and compares.
//
// After a case that loses the device, the rest runs in a new process, which is told by --after NAME.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { cuda } from "@flash-moe/backend-cuda";
import { forwardFloor, nameOf, sizes } from "./cuda/cases.mjs";
import { goOnAfter, isLoss } from "./cuda/go-on.mjs";
import { measureCall, measureRates } from "./cuda/measure.mjs";
import { writeOnce } from "./cuda/tensors.mjs";
import { inputsOf, sharedName, workOf, writeResults } from "./cuda/work.mjs";

const { values: options } = parseArgs({
  options: {
    out: { type: "string" },
    sizes: { type: "string", default: "all" },
    only: { type: "string", default: "" },
    seconds: { type: "string", default: "1" },
    device: { type: "string", default: "0" },
    binary: { type: "string" },
    after: { type: "string" },
  },
});
const cases = sizes[/** @type {keyof typeof sizes} */ (options.sizes)];
if (options.out === undefined || cases === undefined) {
  console.error(`--out FOLDER is needed; --sizes takes ${Object.keys(sizes).join(" or ")}`);
  process.exit(2);
}
const out = options.out;
const folder = join(out, "tensors");
mkdirSync(folder, { recursive: true });
const open = () => cuda.open({ device: Number(options.device), binary: options.binary });
const tiny = options.sizes === "tiny";
const flushBytes = tiny ? 2 ** 16 : 2 ** 29;

let device = "";
const file = join(out, "cuda.json");
const { after } = options;
/** @type {{ rates: import("./cuda/cases.mjs").Rates, rows: { name: string, error?: string }[] }} */
const { rates, rows } =
  after === undefined
    ? { rates: await withBackend((backend) => measureRates(backend, tiny ? 64 : 8192, flushBytes)), rows: [] }
    : JSON.parse(readFileSync(file, "utf8"));
let reached = after === undefined;
for (const size of cases) {
  const name = nameOf(size);
  if (!reached) {
    reached = name === after;
    continue;
  }
  if (!name.includes(options.only)) continue;
  process.stderr.write(`${name}\n`);
  let lost = false;
  try {
    rows.push(await withBackend((backend) => run(backend, size, name)));
  } catch (error) {
    rows.push({ name, ...size, error: error instanceof Error ? error.message : String(error) });
    process.stderr.write(`  ${rows.at(-1)?.error}\n`);
    lost = isLoss(error);
  }
  // After each: a run that is cut short leaves what it has.
  const result = { device, node: process.version, rates, rows };
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
  if (lost) goOnAfter(name);
}
process.exitCode = rows.some((row) => "error" in row) ? 1 : 0;

/** @template Result @param {(backend: import("@flash-moe/core").Backend) => Promise<Result>} use */
async function withBackend(use) {
  const backend = await open();
  device = backend.device;
  try {
    return await use(backend);
  } finally {
    await backend.dispose();
  }
}

/** @param {import("@flash-moe/core").Backend} backend @param {import("./cuda/cases.mjs").Case} size @param {string} name */
async function run(backend, size, name) {
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
    microseconds[call] = await measureCall(backend, flush, enqueue, Number(options.seconds));
  }
  const floor = 1e6 * forwardFloor(size, rates);
  const files = { tensors: `${name}.safetensors`, ours: `${name}.ours.safetensors` };
  return {
    name,
    ...size,
    ...files,
    tables: hasShared ? `${sharedName(size)}.safetensors` : undefined,
    forwardFloorMicroseconds: floor,
    microseconds,
    inputBytes,
    peakBytes,
  };
}
