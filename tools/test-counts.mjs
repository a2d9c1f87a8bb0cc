// Prints "N passed, N failed" from vitest's JSON report; the exit code is 1 unless every test passed.
import { existsSync, readFileSync } from "node:fs";

const report = process.argv[2];
let passed = 0;
let failed = 1; // a run that left no report did not end
if (report && existsSync(report)) {
  const result = JSON.parse(readFileSync(report, "utf8"));
  passed = result.numPassedTests;
  // A file that cannot be loaded, and an error outside of any test, have no test of their own to fail.
  failed = Math.max(result.numFailedTests + unloaded(result), result.success ? 0 : 1);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;

/** @param {{ testResults: { status: string, assertionResults: unknown[] }[] }} result */
function unloaded({ testResults }) {
  return testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0).length;
}
