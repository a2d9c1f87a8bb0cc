// The conformance suite on the GPU. Results go to stdout as JSON, after each case a line to stderr.
import { runConformance } from "@flash-moe/reference/conformance";
import provider from "./cuda-provider.mjs";

const report = await runConformance(provider, {
  required: true,
  onResult: ({ id, status, error, reason, milliseconds }) =>
    console.error(`${status} ${id} ${milliseconds} ms ${error?.message ?? reason ?? ""}`),
});
const results = report.results.map(({ error, ...result }) => ({ ...result, error: error?.message }));
console.log(JSON.stringify({ ...report, results }, undefined, 2));
console.error(`${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped`);
process.exitCode = report.ok ? 0 : 1;
