// A part of the conformance suite under compute-sanitizer: node sanitizer.mjs TOOL SECONDS FILE
//
// Its tools slow kernels down by tens of times: each gets small cases of every op, and a quarter of the time, less what
// it takes to tell of it. FILE is written after each.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { readCommandLine, takeNumber } from "../lib/command-line.mjs";
import { writeJson } from "../lib/write-json.mjs";

const { positionals } = readCommandLine(import.meta.url, {}, ["TOOL", "SECONDS", "FILE"]);
const [tool, , out] = positionals;
const seconds = takeNumber("SECONDS", positionals[1], { from: 0 });
const cases =
  "^traits/.*/(inputs-unchanged|zero-tokens)$|/(awkward|duplicates|one-token)(/|$)|^buffers/copy$";
const results = {};
for (const check of ["memcheck", "racecheck", "initcheck", "synccheck"]) {
  const limit = Math.max(1, Math.floor((0.9 * seconds) / 4));
  // With what the tool starts, which would go on beside the next one.
  const run = spawnSync(
    "timeout",
    [
      ...["-k", "5", String(limit)],
      ...[tool, `--tool=${check}`, "--error-exitcode=9", "--target-processes=all"],
      ...[process.execPath, fileURLToPath(new URL("conformance.mjs", import.meta.url))],
      ...["--from", "0", "--pattern", cases, "--case-seconds", String(limit)],
    ],
    { encoding: "utf8", maxBuffer: 2 ** 28 },
  );
  const lines = `${run.stdout}\n${run.stderr}\n${run.error?.message ?? ""}`
    .split("\n")
    .filter((line) => line.trim() !== "");
  const told = lines.filter((line) => line.startsWith("{")).flatMap((line) => parsed(line)?.result ?? []);
  const count = (/** @type {string} */ status) => told.filter((one) => one.status === status).length;
  // What it says as it finds it: a run that is cut short has no summary.
  const found = lines.filter((line) => /^=+ \S/.test(line) && !/COMPUTE-SANITIZER|SUMMARY/.test(line));
  const timedOut = run.status === 124 || run.status === 137;
  const isWrong = found.length > 0 || count("failed") > 0 || (run.status !== 0 && !timedOut);
  results[check] = {
    status: isWrong ? "errors" : timedOut ? "ran out of time" : "clean",
    exitCode: run.status,
    passed: count("passed"),
    failed: told.filter((one) => one.status === "failed"),
    summary: lines.filter((line) => line.includes("SUMMARY")),
    first: isWrong ? lines.filter((line) => !line.startsWith("{")).slice(0, 80) : [],
  };
  writeJson(out, results);
  console.error(`${check}: ${results[check].status}, ${count("passed")} cases passed`);
}
process.exitCode = Object.values(results).some(({ status }) => status === "errors") ? 1 : 0;

/** @param {string} line @returns {{ result?: { status: string } } | undefined} */
function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
