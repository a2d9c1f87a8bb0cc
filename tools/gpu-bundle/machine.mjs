// What this machine is: node machine.mjs ORIGIN
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { probeBackends } from "flash-moe";
import { readCommandLine } from "../lib/command-line.mjs";
import provider from "./cuda-provider.mjs";
import { clocks } from "./nvidia-smi.mjs";

const [origin] = readCommandLine(import.meta.url, {}, ["ORIGIN"]).positionals;
const backends = await probeBackends();
const result = {
  ...JSON.parse(readFileSync(origin, "utf8")),
  cuda: await provider.probe(),
  backends,
  gpus: clocks(),
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryBytes: totalmem(),
  kernel: release(),
  driver: file("/proc/driver/nvidia/version"),
};
console.log(JSON.stringify(result, undefined, 2));

/** @param {string} path */
function file(path) {
  try {
    return readFileSync(path, "utf8").split("\n")[0];
  } catch {
    return null;
  }
}
