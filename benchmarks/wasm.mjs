// The WebAssembly backend against what else runs a layer on a CPU from JavaScript: pnpm bench:wasm [sizes] [rounds]
//
// Whole layer and routed part alone (router and experts), f32, forward, and forward with backward where a library has
// gradients; one thread, two, and two that are kept on a core each (Linux). Every library is in a process of its own;
// medians over the rounds. `sizes` are their numbers, as in 0,2. Stores results/peers-wasm-node20.json, with the major
// version of Node, whose engine counts.
import { readCommandLine, takeNumber, takeSome } from "../tools/lib/command-line.mjs";
import { installFolder } from "./install.mjs";
import { ChildContender } from "./peers/child-contender.mjs";
import { compareLibraries, printComparison, storeComparison } from "./peers/compare.mjs";
import { canPlaceThreads } from "./peers/place-threads.mjs";

const allSizes = [
  { tokens: 1, hiddenSize: 256, numExperts: 65_536, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 4_096, topK: 16 },
  { tokens: 256, hiddenSize: 512, numExperts: 16_384, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 1_048_576, topK: 32 },
];
const libraries = ["flash-moe wasm", "onnxruntime-node CPU", "onnxruntime-web wasm", "jax-js wasm"];

const { positionals } = readCommandLine(import.meta.url, {}, ["[sizes]", "[rounds]"]);
const sizes = takeSome("sizes", positionals[0], allSizes);
const rounds = takeNumber("rounds", positionals[1] ?? "21");
const settings = [
  { threads: 1 },
  { threads: 2 },
  ...(canPlaceThreads() ? [{ threads: 2, placed: true }] : []),
];
const versions = installFolder("peers", "700 MB");

const rows = [];
for (const size of sizes) {
  for (const setting of settings) {
    const contenders = libraries.map((library) => new ChildContender(library, setting.threads, size));
    rows.push(...(await compareLibraries(size, setting, contenders, rounds)));
  }
}
printComparison(sizes, rows, libraries[0]);
const [major] = process.versions.node.split(".");
storeComparison(`peers-wasm-node${major}`, { rounds, versions, rows });
