// How the cost of routing and of the experts grows with their number: pnpm bench [backend]
//
// T = 64 tokens, H = 256, k = 32, N = 4,096, 65,536 and 1,048,576, f32. The three layers are measured in turn,
// round after round, so that what else the machine does falls on all of them; medians over the rounds. Prints a
// table and stores it, with the machine and the commit, in results/.
import { mkdirSync, writeFileSync } from "node:fs";
import { FlashMoE, openBackend } from "flash-moe";
import { describeCommit, describeMachine } from "./machine.mjs";
import { normals } from "./normals.mjs";
import { printTable } from "./print-table.mjs";
import { fitExponent, median } from "./statistics.mjs";

const tokens = 64;
const hiddenSize = 256;
const topK = 32;
const sides = [64, 256, 1024];
const rounds = 21;
const warmUpRounds = 3;

const backend = await openBackend(process.argv[2] ?? "reference");
const layers = [];
for (const side of sides) layers.push(await prepare(side));

const operations = Object.keys(layers[0].operations);
/** @type {Map<string, number[]>} */
const samples = new Map();
for (let round = -warmUpRounds; round < rounds; round++) {
  say(`round ${round + 1} of ${rounds}`);
  for (const layer of layers) {
    for (const name of operations) {
      const start = performance.now();
      layer.operations[name]();
      await backend.sync();
      const milliseconds = performance.now() - start;
      if (round < 0) continue;
      const key = `${name} ${layer.experts}`;
      samples.set(key, [...(samples.get(key) ?? []), milliseconds]);
    }
  }
}
say("");

const experts = layers.map((layer) => layer.experts);
const results = operations.map((operation) => {
  const milliseconds = experts.map((count) => median(samples.get(`${operation} ${count}`) ?? []));
  return { operation, milliseconds, exponent: fitExponent(experts, milliseconds) };
});
print(results);
store(results);
await backend.dispose();

/** Replaces the last line of a terminal. @param {string} line */
function say(line) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

/** A layer of side * side experts, a batch, and what is measured of it. @param {number} side */
async function prepare(side) {
  say(`making ${side * side} experts`);
  const options = { hiddenSize, intermediateSize: 1, keysX: side, keysY: side, topK };
  const layer = await FlashMoE.create(backend, options, { seed: side });
  const states = backend.upload(normals(tokens * hiddenSize, 1), [tokens, hiddenSize]);
  const gradOutput = backend.upload(normals(tokens * hiddenSize, 2), [tokens, hiddenSize]);
  const gradWeights = backend.upload(normals(tokens * topK, 3), [tokens, topK]);
  const { router } = layer;
  const { experts } = layer.ffn;
  const recording = router.record(states);
  const { routing } = recording;
  return {
    experts: side * side,
    operations: {
      "router forward": () => router.forward(states).dispose(),
      "router backward": () => recording.backward({ weights: gradWeights }).dispose(),
      "experts forward": () => experts.forward(states, routing).dispose(),
      "experts backward, compact": () => {
        const { gradients, weights } = experts.backward(states, routing, gradOutput, { tables: "compact" });
        gradients.dispose();
        weights.dispose();
      },
    },
  };
}

/** @param {{ operation: string, milliseconds: number[], exponent: number }[]} rows */
function print(rows) {
  const header = ["", ...experts.map((count) => `N = ${count.toLocaleString("en-US")}`), "N^"];
  const table = rows.map(({ operation, milliseconds, exponent }) => [
    operation,
    ...milliseconds.map((time) => `${time.toFixed(2)} ms`),
    exponent.toFixed(2),
  ]);
  printTable([header, ...table]);
}

/** @param {unknown} rows */
function store(rows) {
  const folder = new URL("results/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const file = new URL(`scaling-${backend.name}.json`, folder);
  const contents = {
    backend: backend.name,
    device: backend.device,
    tokens,
    hiddenSize,
    topK,
    experts,
    rounds,
    results: rows,
    machine: describeMachine(),
    commit: describeCommit(),
  };
  writeFileSync(file, `${JSON.stringify(contents, undefined, 2)}\n`);
  console.log(`\nstored in benchmarks/results/scaling-${backend.name}.json`);
}
