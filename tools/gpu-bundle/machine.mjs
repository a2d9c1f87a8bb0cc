// What this machine is: node machine.mjs ORIGIN
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { probeBackends } from "flash-moe";
import provider from "./cuda-provider.mjs";
import { clocks } from "./nvidia-smi.mjs";

const backends = await probeBackends();
const result = {
  ...JSON.parse(readFileSync(process.argv[2], "utf8")),
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
