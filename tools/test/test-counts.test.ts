import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const script = fileURLToPath(new URL("../test-counts.mjs", import.meta.url));

/** What is printed, and the exit code, for a report; without one, the file does not exist. */
function counts(report?: object): [string, number | null] {
  const directory = mkdtempSync(join(tmpdir(), "flash-moe-counts-"));
  try {
    const path = join(directory, "report.json");
    if (report) writeFileSync(path, JSON.stringify(report));
    const { stdout, status } = spawnSync(process.execPath, [script, path], { encoding: "utf8" });
    return [stdout, status];
  } finally {
    rmSync(directory, { recursive: true });
  }
}

it("counts passed and failed tests", () => {
  const ran = { status: "passed", assertionResults: [{}] };
  expect(counts({ numPassedTests: 7, numFailedTests: 0, success: true, testResults: [ran] })).toEqual([
    "7 passed, 0 failed\n",
    0,
  ]);
  expect(counts({ numPassedTests: 5, numFailedTests: 2, success: false, testResults: [ran] })).toEqual([
    "5 passed, 2 failed\n",
    1,
  ]);
});

it("counts a file that could not be loaded, and an error outside of any test, as a failure", () => {
  const notLoaded = { status: "failed", assertionResults: [] };
  expect(
    counts({ numPassedTests: 7, numFailedTests: 1, success: false, testResults: [notLoaded, notLoaded] }),
  ).toEqual(["7 passed, 3 failed\n", 1]);
  expect(counts({ numPassedTests: 7, numFailedTests: 0, success: false, testResults: [] })).toEqual([
    "7 passed, 1 failed\n",
    1,
  ]);
});

it("fails when nothing ran, or the run left no report", () => {
  expect(counts({ numPassedTests: 0, numFailedTests: 0, success: true, testResults: [] })[1]).toBe(1);
  expect(counts()).toEqual(["0 passed, 1 failed\n", 1]);
});
