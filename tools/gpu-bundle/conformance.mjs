// The conformance suite on the GPU: node conformance.mjs --out FILE [--backend cuda|webgpu] [--pattern REGEXP]
// [--case-seconds S] [--tune TEXT]. FILE is written after each case, and a line goes to stderr.
//
// --tune has the ops of CUDA go a way (native/runtime/tuning.h); cases whose ops cannot on this GPU are skipped.
//
// --from N instead of --out does the cases from there on, and tells of them as runParts wants it.
import { fileURLToPath } from "node:url";
import { tune } from "@flash-moe/backend-cuda";
import { FlashMoeError } from "@flash-moe/core";
import { ConformanceSession } from "@flash-moe/reference/conformance";
import { readCommandLine, takeNumber, takeOne } from "../lib/command-line.mjs";
import { runParts } from "../lib/run-parts.mjs";
import { isLoss, serveParts } from "../lib/serve-parts.mjs";
import { writeJson } from "../lib/write-json.mjs";
import { backends } from "./backends.mjs";

const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string" },
  backend: { type: "string", default: "cuda" },
  pattern: { type: "string", default: "" },
  "case-seconds": { type: "string", default: "15" },
  tune: { type: "string" },
  from: { type: "string" },
});
const caseSeconds = takeNumber("--case-seconds", options["case-seconds"], { fraction: true });
const chosen = takeOne("--backend", options.backend, backends);
if (options.from === undefined) await runAll();
else await runFrom(Number(options.from));

function provider() {
  const { tune: way } = options;
  if (way === undefined) return chosen;
  const open = async (/** @type {import("@flash-moe/core").OpenOptions} */ more) => {
    const backend = await chosen.open(more);
    tune(backend, way);
    return backend;
  };
  return { ...chosen, open };
}

/** @param {number} first */
async function runFrom(first) {
  const wanted = new RegExp(options.pattern);
  const session = new ConformanceSession(provider(), {
    required: true,
    caseMilliseconds: 1000 * caseSeconds,
    filter: (id) => wanted.test(id),
  });
  const { error } = await session.open();
  if (error !== undefined) {
    console.error(error.message);
    process.exit(1);
  }
  const parts = session.cases.map((testCase) => ({
    name: testCase.id,
    async run() {
      const { error, ...result } = await session.run(testCase);
      if (options.tune !== undefined && FlashMoeError.is(error) && error.code === "UNSUPPORTED")
        return { ...result, status: "skipped", reason: error.message };
      return { ...result, device: session.device, error: error?.message, lost: isLoss(error) };
    },
  }));
  await serveParts(parts, first, () => session.close());
}

async function runAll() {
  /** @type {{ id: string, status: string }[]} */
  const results = [];
  let device = "";
  const tell = (/** @type {{ complete: boolean, problems: string[] }} */ { complete, problems }) => {
    const count = (/** @type {string} */ status) => results.filter((one) => one.status === status).length;
    const [passed, failed, skipped] = ["passed", "failed", "skipped"].map(count);
    // Whether every case was reached, and the processes ended well.
    const ok = complete && problems.length === 0 && failed === 0 && passed > 0;
    const { backend } = options;
    if (options.out !== undefined)
      writeJson(options.out, { backend, device, passed, failed, skipped, ok, complete, problems, results });
    return { ok, text: `${passed} passed, ${failed} failed, ${skipped} skipped` };
  };
  const summary = await runParts({
    command: process.execPath,
    args: [fileURLToPath(import.meta.url), ...process.argv.slice(2)],
    // Also the start and the opening, which may take longer than a case.
    silence: caseSeconds + 30,
    onResult: (name, { device: found, ...result }) => {
      device = found ?? device;
      const told = { id: name, status: "failed", milliseconds: 0, ...result };
      results.push(told);
      console.error(`${told.status} ${name} ${told.milliseconds} ms ${told.error ?? told.reason ?? ""}`);
      tell({ complete: false, problems: [] });
    },
  });
  const { ok, text } = tell(summary);
  for (const problem of summary.problems) console.error(problem);
  console.error(`${text}${summary.complete ? "" : "; cases are left that did not run"}`);
  process.exitCode = ok ? 0 : 1;
}
