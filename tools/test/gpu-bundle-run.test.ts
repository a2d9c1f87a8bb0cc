import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";

const tools = fileURLToPath(new URL("..", import.meta.url));

let directory: string;
let results: string;
let pack: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "flash-moe-run-"));
  results = join(directory, "results");
  pack = join(directory, "pack.tar.gz");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A bundle whose scripts do what is given. */
function bundle(scripts: Record<string, string>): string {
  const folder = join(directory, "bundle");
  const app = join(folder, "app/tools/gpu-bundle");
  mkdirSync(app, { recursive: true });
  cpSync(join(tools, "gpu-bundle/run.sh"), join(folder, "run.sh"));
  cpSync(join(tools, "lib"), join(folder, "app/tools/lib"), { recursive: true });
  for (const name of ["summary.mjs", "nvidia-smi.mjs"])
    cpSync(join(tools, "gpu-bundle", name), join(app, name));
  const all = { "device.mjs": 'console.log("a GPU")', "table.mjs": 'console.log("a table")', ...scripts };
  for (const [name, body] of Object.entries(all)) writeFileSync(join(app, name), body);
  writeFileSync(join(folder, "origin.json"), "{}");
  writeFileSync(join(folder, "node"), `#!/bin/sh\nexec "${process.execPath}" "$@"\n`);
  chmodSync(join(folder, "node"), 0o755);
  return join(folder, "run.sh");
}

function statuses(): string[] {
  const lines = readFileSync(join(results, "stages.txt"), "utf8").trim().split("\n");
  return lines.map((line) => line.split("\t").slice(0, 2).join(" "));
}

const packed = () => execFileSync("tar", ["-tzf", pack], { encoding: "utf8" }).split("\n");

it("ends a stage that hangs when its share is spent, and goes on", () => {
  const run = bundle({
    "bench.mjs": "process.on('SIGTERM', () => process.exit(1)); setInterval(() => {}, 1000);",
    "training.mjs": "console.log(JSON.stringify({ worst: 0 }));",
    "machine.mjs": "process.kill(process.pid, 'SIGSEGV');",
  });
  const args = ["--out", results, "--pack", pack, "--budget", "14", "bench", "training", "info"];
  const { status, stdout } = spawnSync("sh", [run, ...args], { encoding: "utf8" });
  expect(status).toBe(1);
  expect(stdout).toContain("it ran past its limit of");
  expect(statuses()).toEqual(["bench failed", "training passed", "info failed"]);
  expect(JSON.parse(readFileSync(join(results, "training.json"), "utf8"))).toEqual({ worst: 0 });
  expect(packed()).toEqual(expect.arrayContaining(["./training.json", "./summary.txt", "./table.txt"]));
});

it("skips what no time is left for", () => {
  const run = bundle({ "training.mjs": "", "conformance.mjs": "" });
  const { status } = spawnSync("sh", [run, "--out", results, "--budget", "4", "training", "conformance"]);
  expect(status).toBe(0);
  expect(statuses()).toEqual(["training skipped", "conformance skipped"]);
});

it("measures nothing by Hopper's instruction when one of its tiles is wrong", () => {
  const run = bundle({
    "conformance.mjs": 'process.exit(process.argv.includes("tiles=wgmma_128_by_256") ? 1 : 0)',
  });
  const { status } = spawnSync("sh", [run, "--out", results, "wgmma"]);
  expect(status).toBe(1);
  expect(statuses()).toEqual(["wgmma passed", "wgmma-128_by_128 passed", "wgmma-128_by_256 failed"]);
});

it("ends what it runs when it is ended, and packs what that tells", async () => {
  const begun = join(directory, "begun");
  const told = join(results, "told.json");
  const run = bundle({
    "bench.mjs": `import { writeFileSync } from "node:fs";
      process.on("SIGTERM", () => { writeFileSync(${JSON.stringify(told)}, "{}"); process.exit(1); });
      writeFileSync(${JSON.stringify(begun)}, ""); setInterval(() => {}, 1000);`,
  });
  const child = spawn("sh", [run, "--out", results, "--pack", pack, "bench"]);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  while (!existsSync(begun)) await sleep(50);
  child.kill("SIGTERM");
  expect(await ended).toBe(143);
  expect(packed()).toContain("./told.json");
});

it("has packed what there is when it is killed", async () => {
  const begun = join(directory, "begun");
  const run = bundle({
    "training.mjs": "console.log('{}')",
    // Nobody ends it: it goes with the folder.
    "bench.mjs": `import { existsSync, writeFileSync } from "node:fs";
      writeFileSync(${JSON.stringify(begun)}, "");
      setInterval(() => existsSync(${JSON.stringify(begun)}) || process.exit(), 100);`,
  });
  const child = spawn("sh", [run, "--out", results, "--pack", pack, "training", "bench"], { detached: true });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  while (!existsSync(begun)) await sleep(50);
  process.kill(-child.pid!, "SIGKILL");
  await ended;
  expect(packed()).toEqual(expect.arrayContaining(["./training.json", "./stages.txt", "./summary.json"]));
});
