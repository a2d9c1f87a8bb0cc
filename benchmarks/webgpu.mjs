// The WebGPU backend against what else runs a layer on WebGPU from JavaScript: pnpm bench:webgpu [sizes] [rounds]
//
// In Node, all in one process: jax-js on the very device that flash-moe uses, onnxruntime-node's WebGPU provider on its
// own device of the same adapter. In Chromium, all in one page: TensorFlow.js, on its own device of the same adapter.
// Whole layer and routed part alone (router and experts), f32, forward, and forward with backward where a library has
// gradients. What a layer costs besides time comes first: compilation, dispatches, memory. `sizes` are numbers from 0 on,
// 0,2 for the first and the third. Stores results/peers-webgpu.json, size by size; what it says of others stays.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { readCommandLine, takeNumber, takeSome } from "../tools/lib/command-line.mjs";
import { installFolder } from "./install.mjs";
import { describeCommit } from "./machine.mjs";
import { compareLibraries, printComparison, storeComparison } from "./peers/compare.mjs";
import { flashMoeRunner } from "./peers/flash-moe.mjs";
import { jaxRunner } from "./peers/jax-js.mjs";
import { LocalContender } from "./peers/local-contender.mjs";
import { openContenders } from "./peers/page-contender.mjs";
import { makeProblem } from "./peers/problem.mjs";
import { printTable } from "./print-table.mjs";
import { measureCosts, tableOfCosts } from "./webgpu/costs.mjs";
import { useSoftwareDriverIfNoneIsNamed } from "./webgpu/software-driver.mjs";

const allSizes = [
  { tokens: 1, hiddenSize: 256, numExperts: 65_536, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 4_096, topK: 16 },
  { tokens: 256, hiddenSize: 512, numExperts: 16_384, topK: 32 },
  { tokens: 512, hiddenSize: 512, numExperts: 65_536, topK: 64 },
];
const ours = "flash-moe webgpu";

const { positionals } = readCommandLine(import.meta.url, {}, ["[sizes]", "[rounds]"]);
const sizes = takeSome("sizes", positionals[0], allSizes);
const rounds = takeNumber("rounds", positionals[1] ?? "5");
useSoftwareDriverIfNoneIsNamed();
const versions = installFolder("peers", "700 MB");
// It imports what has just been installed.
const { onnxruntimeRunner } = await import("./peers/onnxruntime.mjs");
const { gpu, passes } = startDawn();
const { webgpu } = await import("@flash-moe/backend-webgpu");

const costs = [];
for (const size of sizes)
  costs.push({ ...(await measureCosts(gpu, passes, size)), commit: describeCommit() });
printTable(tableOfCosts(costs));

const rows = [];
let device = "";
let browserDevice = "";
for (const size of sizes) {
  const problem = makeProblem(size);
  // A device for each size, which has compiled nothing yet.
  const backend = await webgpu.open({ gpu });
  device = backend.device;
  const contenders = [
    new LocalContender(ours, (part) => flashMoeRunner(backend, problem, part)),
    new LocalContender("jax-js webgpu", (part) => jaxRunner("webgpu", problem, part)),
    new LocalContender("onnxruntime-node WebGPU", (part) =>
      onnxruntimeRunner("node-webgpu", 2, problem, part),
    ),
  ];
  rows.push(...(await compareLibraries(size, { runtime: "Node" }, contenders, rounds)));
  await backend.dispose();

  const page = await openContenders(size);
  browserDevice = page.device;
  rows.push(...(await compareLibraries(size, { runtime: "Chromium" }, page.contenders, rounds)));
  await page.close();
  storeComparison("peers-webgpu", { device, browserDevice, versions, ...withOthers() });
}
printComparison(sizes, rows, ours);
process.exit();

/** What was measured so far, and what the file says of sizes that were not. */
function withOthers() {
  const file = new URL("results/peers-webgpu.json", import.meta.url);
  const before = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { costs: [], rows: [] };
  const numberOf = ({ tokens }) => allSizes.findIndex((size) => size.tokens === tokens);
  const merge = (old, measured) => {
    const kept = old.filter((row) => !measured.some((other) => numberOf(other) === numberOf(row)));
    return [...kept, ...measured].sort((a, b) => numberOf(a) - numberOf(b));
  };
  const told = rows.map((row) => ({ ...row, rounds, commit: describeCommit() }));
  return { costs: merge(before.costs, costs), rows: merge(before.rows, told) };
}

/** One Dawn for flash-moe and jax-js, which looks for it where a browser has it. */
function startDawn() {
  const require = createRequire(new URL("../packages/backend-webgpu/package.json", import.meta.url));
  const { create, globals } = require("webgpu");
  Object.assign(globalThis, globals);
  const gpu = create([]);
  Object.defineProperty(globalThis, "navigator", {
    value: { gpu, userAgent: "Node.js" },
    configurable: true,
  });
  return { gpu, passes: globals.GPUComputePassEncoder };
}
