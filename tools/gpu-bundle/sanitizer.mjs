// A part of the conformance suite under compute-sanitizer: node sanitizer.mjs TOOL SECONDS
//
// Its tools slow kernels down by tens of times: each gets small cases of every op, and a quarter of the time, less what
// it takes to tell of it.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const [tool, seconds] = process.argv.slice(2);
const part = fileURLToPath(new URL("conformance-part.mjs", import.meta.url));
const cases =
  "^traits/.*/(inputs-unchanged|zero-tokens)$|/(awkward|duplicates|one-token)(/|$)|^buffers/copy$";
const results = {};
for (const check of ["memcheck", "racecheck", "initcheck", "synccheck"]) {
  const limit = Math.max(1, Math.floor((0.9 * Number(seconds)) / 4));
  // With what the tool starts, which would go on beside the next one.
  const run = spawnSync(
    "timeout",
    [
      "-k",
      "5",
      String(limit),
      tool,
      `--tool=${check}`,
      "--error-exitcode=9",
      "--target-processes=all",
      process.execPath,
      part,
      cases,
    ],
    { encoding: "utf8", maxBuffer: 2 ** 28 },
  );
  const lines = `${run.stdout}\n${run.stderr}\n${run.error?.message ?? ""}`
    .split("\n")
    .filter((line) => line.trim() !== "");
  const summary = lines.filter((line) => /SUMMARY|passed,/.test(line));
  const timedOut = run.status === 124 || run.status === 137;
  results[check] = {
    status: timedOut ? "ran out of time" : run.status === 0 ? "clean" : "errors",
    exitCode: run.status,
    summary,
    first: run.status === 0 ? [] : lines.slice(0, 60),
  };
  console.error(`${check}: ${results[check].status} ${summary.join(" ")}`);
}
console.log(JSON.stringify(results, undefined, 2));
process.exitCode = Object.values(results).some(({ status }) => status === "errors") ? 1 : 0;
