// How the cost of routing and of the experts grows with their number: pnpm bench [backend]
//
// T = 64 tokens, H = 256, k = 32, N = 4,096, 65,536 and 1,048,576, f32. The layers are measured in turn, round after
// round, so that what else the machine does falls on all of them; medians over the rounds. Where a device cannot bind the
// largest tables at once, which costs a pass for each part, 1,000,000 is measured too, and the exponent is that of the
// tables in one part. Prints a table and stores it, with the machine and the commit, in results/.
import { mkdirSync, writeFileSync } from "node:fs";
import { FlashMoE, openBackend } from "flash-moe";
import { describeCommit, describeMachine } from "./machine.mjs";
import { normals } from "./normals.mjs";
import { printTable } from "./print-table.mjs";
import { fitExponent, median } from "./statistics.mjs";
import { useSoftwareDriverIfNoneIsNamed } from "./webgpu/software-driver.mjs";

const tokens = 64;
const hiddenSize = 256;
const topK = 32;
const rounds = 21;
const warmUpRounds = 3;

const name = process.argv[2] ?? "reference";
if (name === "webgpu") useSoftwareDriverIfNoneIsNamed();
const backend = await openBackend(name);
const operandBytes = backend.capabilities.maxOperandBytes ?? Number.POSITIVE_INFINITY;
const isSplit = (/** @type {number} */ experts) => 4 * hiddenSize * experts > operandBytes;
const sides = isSplit(1024 ** 2) ? [64, 256, 1000, 1024] : [64, 256, 1024];
const layers = [];
for (const side of sides) layers.push(await prepare(side));

const operations = Object.keys(layers[0].operations);
/** @type {Map<string, number[]>} */
const samples = new Map();
for (let round = -warmUpRounds; round < rounds; round++) {
  say(`round ${round + 1} of ${rounds}`);
  for (const layer of layers) {
    for (const operation of operations) {
      const start = performance.now();
      layer.operations[operation]();
      await backend.sync();
      const milliseconds = performance.now() - start;
      if (round < 0) continue;
      const key = `${operation} ${layer.experts}`;
      samples.set(key, [...(samples.get(key) ?? []), milliseconds]);
    }
  }
}
say("");

const experts = layers.map((layer) => layer.experts);
const whole = experts.filter((count) => !isSplit(count));
const results = operations.map((operation) => {
  const milliseconds = experts.map((count) => median(samples.get(`${operation} ${count}`) ?? []));
  const exponent = fitExponent(
    whole,
    milliseconds.filter((_, n) => !isSplit(experts[n])),
  );
  return { operation, milliseconds, exponent };
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
    ...(whole.length < experts.length && { expertsOfTablesInParts: experts.filter(isSplit) }),
    rounds,
    results: rows,
    machine: describeMachine(),
    commit: describeCommit(),
  };
  writeFileSync(file, `${JSON.stringify(contents, undefined, 2)}\n`);
  console.log(`\nstored in benchmarks/results/scaling-${backend.name}.json`);
}
