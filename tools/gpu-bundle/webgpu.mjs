// WebGPU on this machine's GPU, where Dawn finds one: node webgpu.mjs COMMAND SECONDS. Exit code 3: it finds none.
import { spawnSync } from "node:child_process";
import { webgpu } from "@flash-moe/backend-webgpu";
import { runConformance } from "@flash-moe/reference/conformance";

const [command, seconds] = process.argv.slice(2);
const probe = await webgpu.probe();
if (!probe.available || probe.software) {
  console.log(JSON.stringify(probe));
  console.error(probe.available ? `only ${probe.device}` : probe.reason.split("\n")[0]);
  process.exit(3);
}
const report = await runConformance(webgpu, { required: true });
console.error(`${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped`);
const bench = spawnSync(
  process.execPath,
  [command, "bench", "--backend", "webgpu", "--preset", "small", "--seconds", seconds, "--json"],
  { encoding: "utf8", maxBuffer: 2 ** 26 },
);
const results = report.results.map(({ error, ...result }) => ({ ...result, error: error?.message }));
console.log(
  JSON.stringify(
    { ...report, results, bench: bench.status === 0 ? JSON.parse(bench.stdout) : { error: bench.stderr } },
    undefined,
    2,
  ),
);
// Dawn's instance may keep the process.
process.exit(report.ok && bench.status === 0 ? 0 : 1);
