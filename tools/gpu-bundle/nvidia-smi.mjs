import { spawnSync } from "node:child_process";

const fields = [
  "name",
  "driver_version",
  "clocks.sm",
  "clocks.mem",
  "clocks.max.sm",
  "clocks.max.mem",
  "power.draw",
  "power.limit",
  "temperature.gpu",
  "memory.total",
];

/** Each GPU's name, driver, clocks and power now; or why they are not known. */
export function clocks() {
  const query = `--query-gpu=${fields.join(",")}`;
  const { stdout, error, status } = spawnSync("nvidia-smi", [query, "--format=csv,noheader"], {
    encoding: "utf8",
    timeout: 30_000,
  });
  if (status !== 0) return { unknown: error?.message ?? "nvidia-smi failed" };
  return stdout
    .trim()
    .split("\n")
    .map((line) => Object.fromEntries(line.split(", ").map((value, n) => [fields[n], value])));
}
