// The WebGPU backend against what else runs a layer on WebGPU from JavaScript: pnpm bench:webgpu [sizes] [rounds]
//
// All in one process: jax-js on the very device that flash-moe uses, onnxruntime-node's WebGPU provider on its own
// device of the same adapter. Whole layer and routed part alone (router and experts), f32, forward, and forward with
// backward where a library has gradients. Stores results/peers-webgpu.json.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { compareLibraries, printComparison, storeComparison } from "./peers/compare.mjs";
import { flashMoeRunner } from "./peers/flash-moe.mjs";
import { installPeers } from "./peers/install.mjs";
import { jaxRunner } from "./peers/jax-js.mjs";
import { LocalContender } from "./peers/local-contender.mjs";
import { onnxruntimeRunner } from "./peers/onnxruntime.mjs";
import { makeProblem } from "./peers/problem.mjs";

const allSizes = [
  { tokens: 1, hiddenSize: 256, numExperts: 65_536, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 4_096, topK: 16 },
  { tokens: 256, hiddenSize: 512, numExperts: 16_384, topK: 32 },
  { tokens: 512, hiddenSize: 512, numExperts: 65_536, topK: 64 },
];
const ours = "flash-moe webgpu";

useSoftwareDriverIfNoneIsNamed();
const sizes = process.argv[2] ? process.argv[2].split(",").map((index) => allSizes[Number(index)]) : allSizes;
const rounds = Number(process.argv[3] ?? 5);
const versions = installPeers();
const gpu = startDawn();
const { webgpu } = await import("@flash-moe/backend-webgpu");
const backend = await webgpu.open({ gpu });

const rows = [];
for (const size of sizes) {
  const problem = makeProblem(size);
  const contenders = [
    new LocalContender(ours, (part) => flashMoeRunner(backend, problem, part)),
    new LocalContender("jax-js webgpu", (part) => jaxRunner("webgpu", problem, part)),
    new LocalContender("onnxruntime-node WebGPU", (part) =>
      onnxruntimeRunner("node-webgpu", 2, problem, part),
    ),
  ];
  rows.push(...(await compareLibraries(size, {}, contenders, rounds)));
}
printComparison(sizes, rows, ours);
storeComparison("peers-webgpu", { rounds, device: backend.device, versions, rows });
await backend.dispose();
process.exit();

/** One Dawn for flash-moe and jax-js, which looks for it where a browser has it. */
function startDawn() {
  const require = createRequire(new URL("../packages/backend-webgpu/package.json", import.meta.url));
  const { create, globals } = require("webgpu");
  Object.assign(globalThis, globals);
  const dawn = create([]);
  Object.defineProperty(globalThis, "navigator", {
    value: { gpu: dawn, userAgent: "Node.js" },
    configurable: true,
  });
  return dawn;
}

/** Starts again on SwiftShader, which the tests unpack, where the environment names no driver and there is no GPU. */
function useSoftwareDriverIfNoneIsNamed() {
  if (process.env.VK_ICD_FILENAMES || process.env.VK_DRIVER_FILES || existsSync("/dev/dri")) return;
  const cache = new URL("../tools/chromium/node_modules/.cache/", import.meta.url);
  const folder = existsSync(cache) && readdirSync(cache).find((name) => /^chromium-[\d.]+$/.test(name));
  if (!folder) {
    console.error("no GPU, and no software adapter yet: pnpm test:webgpu unpacks one");
    process.exit(1);
  }
  const path = fileURLToPath(new URL(folder, cache));
  const env = {
    ...process.env,
    VK_ICD_FILENAMES: `${path}/vk_swiftshader_icd.json`,
    LD_LIBRARY_PATH: [path, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
  };
  const { status } = spawnSync(process.execPath, process.argv.slice(1), { stdio: "inherit", env });
  process.exit(status ?? 1);
}
