// PyTorch and upstream's Triton kernels at the sizes of cuda.mjs, on the same tensors: node benchmarks/cuda-peers.mjs
// --out FOLDER [--python COMMAND] [--flash-moe DIRECTORY] [--omni-moe DIRECTORY] [--only TEXT] [--seconds S]
// [--origin FILE]
//
// FOLDER is what cuda.mjs wrote; the directories are clones of upstream's two repositories. Writes peers.json after each
// size of each implementation (cuda_peers.py). What matters most is measured by all of them before anything else is.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readCommandLine, refuse, takeNumber } from "../tools/lib/command-line.mjs";
import { runParts } from "../tools/lib/run-parts.mjs";
import { writeJson } from "../tools/lib/write-json.mjs";
import { about } from "./cuda/about.mjs";
import { nameOf, sizes } from "./cuda/cases.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  python: { type: "string", default: "python3" },
  "flash-moe": { type: "string" },
  "omni-moe": { type: "string" },
  only: { type: "string", default: "" },
  seconds: { type: "string", default: "1" },
  origin: { type: "string" },
});
const out = options.out ?? refuse("--out FOLDER is needed");
takeNumber("--seconds", options.seconds, { fraction: true });

/**
 * In the order of what a run that is cut short would lose. `silence`: seconds for one size, forward and backward each;
 * what is compiled meanwhile takes most of them. `passes`: why a size is passed over.
 */
/** @type {{ id: string, name: string, silence: number, passes?: (row: Row) => string | undefined }[]} */
const implementations = [
  { id: "eager", name: "PyTorch eager", silence: 60 },
  {
    id: "flash-moe",
    name: "flash-moe (Triton)",
    silence: 75,
    passes: ({ keys, topK }) =>
      keys > 128 && topK > 32 && topK <= keys
        ? "its router is unrolled over k, and compiles for minutes"
        : undefined,
  },
  { id: "compile", name: "torch.compile", silence: 75 },
  { id: "omni-moe", name: "omni-moe (Triton)", silence: 75 },
];

/** @typedef {{ name: string, kind: string, keys: number, topK: number, error?: string }} Row */
/** @type {{ rows: Row[] }} */
const { rows } = JSON.parse(readFileSync(join(out, "cuda.json"), "utf8"));
const right = rows.filter((row) => row.error === undefined && row.name.includes(options.only));
const passes = [sizes.first, sizes.peers, undefined].map((pass) => {
  const names = pass?.map(nameOf);
  return names === undefined ? right : right.filter(({ name }) => names.includes(name));
});
/** @type {{ about: object, implementations: Record<string, object>, absent: Record<string, string>, problems: string[],
 *   rates?: object, cases: { name: string, ourErrors?: object, results: Record<string, object> }[] }} */
const report = { about: about(options.origin), implementations: {}, absent: {}, problems: [], cases: [] };
const file = join(out, "peers.json");
for (const pass of passes) for (const one of implementations) await measure(one, pass);
const { absent, problems } = report;
for (const [name, why] of Object.entries(absent)) process.stderr.write(`${name} did not load: ${why}\n`);
for (const problem of problems) process.stderr.write(`${problem}\n`);
process.exitCode = Object.keys(absent).length === 0 && problems.length === 0 ? 0 : 1;

/** @param {typeof implementations[number]} implementation @param {typeof rows} pass */
async function measure({ id, name, silence, passes: why = () => undefined }, pass) {
  const directory = options[/** @type {"flash-moe" | "omni-moe"} */ (id)];
  const isUpstream = id.endsWith("-moe");
  if (name in report.absent || (isUpstream && directory === undefined)) return;
  const wanted = pass.filter(
    // A product alone is the library's that PyTorch calls.
    (row) => (row.kind !== "linear" || id === "eager") && entryOf(row.name).results[name] === undefined,
  );
  for (const row of wanted) {
    const reason = why(row);
    if (reason !== undefined) entryOf(row.name).results[name] = { error: reason };
  }
  const open = wanted.filter((row) => entryOf(row.name).results[name] === undefined);
  if (open.length === 0) return;
  const isFirst = report.implementations[name] === undefined;
  /** @type {string | undefined} */
  let unloaded;
  const summary = await runParts({
    command: options.python,
    args: [
      fileURLToPath(new URL("cuda_peers.py", import.meta.url)),
      ...["--out", out, "--implementation", id, "--seconds", options.seconds],
      ...(directory === undefined ? [] : ["--directory", directory]),
      ...(id === "eager" && isFirst ? ["--rates"] : []),
      ...open.flatMap((row) => ["--row", row.name]),
    ],
    silence,
    onResult: (part, result) => {
      process.stderr.write(`${name}, ${part}: ${toldOf(result)}\n`);
      if (part === "load") {
        const { rates, ...loaded } = result;
        report.implementations[name] ??= loaded;
        report.rates ??= rates;
        unloaded = result.error;
      } else {
        unloaded = undefined;
        const { ourErrors, exact, ...rest } = result;
        const entry = entryOf(part);
        entry.ourErrors ??= ourErrors;
        entry.results[name] = exact === undefined ? rest : { ...rest, exact };
      }
      writeJson(file, report);
    },
  });
  if (unloaded !== undefined) report.absent[name] = unloaded;
  report.problems.push(...summary.problems.map((problem) => `${name}: ${problem}`));
  writeJson(file, { ...report, gpusAfter: about(undefined).gpus });
}

/** @param {string} name */
function entryOf(name) {
  let entry = report.cases.find((one) => one.name === name);
  if (entry === undefined) {
    entry = { name, results: {} };
    report.cases.push(entry);
  }
  return entry;
}

/** @param {any} result */
function toldOf({ error, wrong = [], microseconds = {}, backward }) {
  if (error !== undefined) return error;
  if (wrong.length > 0) return `WRONG: ${wrong.join(", ")}`;
  const times = Object.entries(microseconds).map(([call, { cold }]) => `${call} ${cold.toFixed(1)} us`);
  return [...times, ...(backward === undefined ? [] : [`backward: ${backward}`])].join(", ");
}
