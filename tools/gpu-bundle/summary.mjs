// What became of every stage: node summary.mjs RESULTS ORIGIN GPU [--require-gpu]
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readCommandLine } from "../lib/command-line.mjs";
import { clocks } from "./nvidia-smi.mjs";

const { values, positionals } = readCommandLine(
  import.meta.url,
  { "require-gpu": { type: "boolean", default: false } },
  ["RESULTS", "ORIGIN", "GPU"],
);
const [results, origin, gpu] = positionals;
const stages = readFileSync(join(results, "stages.txt"), "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => {
    const [stage, status, seconds, reason] = line.split("\t");
    return { stage, status, seconds: Number(seconds), ...(reason ? { reason } : {}) };
  });
const failed = stages.filter(({ status }) => status === "failed");
const noGpu = gpu === "" ? readFileSync(join(results, "device.log"), "utf8").trim() : undefined;
const summary = {
  ...JSON.parse(readFileSync(origin, "utf8")),
  gpu: gpu === "" ? null : gpu,
  ...(noGpu === undefined ? {} : { noGpu }),
  gpus: clocks(),
  stages,
};
writeFileSync(join(results, "summary.json"), `${JSON.stringify(summary, undefined, 2)}\n`);
console.log(`\n${gpu === "" ? `no GPU: ${noGpu}. Only what needs none has run.` : `on ${gpu}`}`);
const counts = ["passed", "failed", "skipped"].map((status) => {
  const named = stages.filter((stage) => stage.status === status).map(({ stage }) => stage);
  return `${status} ${named.length}${named.length > 0 ? ` (${named.join(", ")})` : ""}`;
});
console.log(`${counts.join(", ")}; everything is in ${results}`);
process.exitCode = failed.length > 0 || (values["require-gpu"] && gpu === "") ? 1 : 0;
