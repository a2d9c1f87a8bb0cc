// How the cost of routing, of the experts and of their optimizer grows with their number: pnpm bench [backend]
//
// T = 64 tokens, H = 256, k = 32, N = 4,096, 65,536 and 1,048,576, f32; a step of AdamW on one table of which 2,048 rows
// were used, others each time. The sizes are measured in turn, round after round, so that what else the machine does falls on all of them; medians over the rounds. Where a device cannot bind the
// largest tables at once, which costs a pass for each part, 1,000,000 is measured too, and the exponent is that of the
// tables in one part. Prints a table and stores it, with the machine and the commit, in results/.
import { mkdirSync, writeFileSync } from "node:fs";
import { FlashMoeError, SeededRandom } from "@flash-moe/core";
import { FlashMoE, openBackend } from "flash-moe";
import { readCommandLine, refuse } from "../tools/lib/command-line.mjs";
import { describeCommit, describeMachine } from "./machine.mjs";
import { normals } from "./normals.mjs";
import { printTable } from "./print-table.mjs";
import { fitExponent, median } from "./statistics.mjs";
import { useSoftwareDriverIfNoneIsNamed } from "./webgpu/software-driver.mjs";

const tokens = 64;
const hiddenSize = 256;
const topK = 32;
const usedRows = 2048;
const rounds = 21;
const warmUpRounds = 3;

const { positionals } = readCommandLine(import.meta.url, {}, ["[backend]"]);
const name = positionals[0] ?? "reference";
if (name === "webgpu") useSoftwareDriverIfNoneIsNamed();
const backend = await openBackend(name).catch((error) =>
  refuse(FlashMoeError.is(error) ? error.message : String(error)),
);
const operandBytes = backend.capabilities.maxOperandBytes ?? Number.POSITIVE_INFINITY;
const isSplit = (/** @type {number} */ experts) => 4 * hiddenSize * experts > operandBytes;
const sides = isSplit(1024 ** 2) ? [64, 256, 1000, 1024] : [64, 256, 1024];
const experts = sides.map((side) => side * side);
/** @type {Map<string, number[]>} */
const samples = new Map();
await measure(prepareLayer);
// Not beside the layers: moments are twice as large as their table.
await measure(prepareOptimizer);
say("");

const whole = experts.filter((count) => !isSplit(count));
const operations = [...samples.keys()].filter((key) => key.endsWith(` of ${experts[0]}`));
const results = operations.map((key) => {
  const operation = key.slice(0, key.lastIndexOf(" of "));
  const milliseconds = experts.map((count) => median(samples.get(`${operation} of ${count}`) ?? []));
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

/**
 * @typedef {{ operations: Record<string, () => void>, dispose(): void }} Subject
 * @param {(side: number) => Promise<Subject>} prepare
 */
async function measure(prepare) {
  const subjects = [];
  for (const side of sides) subjects.push(await prepare(side));
  for (let round = -warmUpRounds; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}`);
    for (const [n, { operations }] of subjects.entries()) {
      for (const [operation, run] of Object.entries(operations)) {
        const start = performance.now();
        run();
        await backend.sync();
        const milliseconds = performance.now() - start;
        if (round < 0) continue;
        const key = `${operation} of ${experts[n]}`;
        samples.set(key, [...(samples.get(key) ?? []), milliseconds]);
      }
    }
  }
  for (const subject of subjects) subject.dispose();
}

/** A layer of side * side experts, a batch, and what is measured of it. @param {number} side @returns {Promise<Subject>} */
async function prepareLayer(side) {
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
    dispose: () => {
      recording.dispose();
      layer.dispose();
      for (const tensor of [states, gradOutput, gradWeights]) tensor.dispose();
    },
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

/** A table of side * side rows with its moments, and gradients of some rows. @param {number} side @returns {Promise<Subject>} */
async function prepareOptimizer(side) {
  const rows = side * side;
  say(`making a table of ${rows} rows and its moments`);
  const [parameter, firstMoment, secondMoment] = [1, 2, 3].map(() => backend.alloc("f32", rows * hiddenSize));
  const gradient = backend.upload(normals(usedRows * hiddenSize, 4), [usedRows, hiddenSize]).buffer;
  const random = new SeededRandom(side);
  const ids = [1, 2, 3, 4].map(() => {
    const used = new Set();
    while (used.size < usedRows) used.add(random.integer(rows));
    const sorted = Int32Array.from(used).sort();
    return backend.upload(sorted, [usedRows], "i32").buffer;
  });
  const count = backend.upload(Int32Array.of(usedRows), [1], "i32").buffer;
  const hyperparameters = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };
  let step = 0;
  return {
    dispose: () => {
      for (const buffer of [parameter, firstMoment, secondMoment, gradient, count, ...ids]) buffer.dispose();
    },
    operations: {
      "adamw, 2,048 rows used": () => {
        const compact = { capacity: usedRows, ids: ids[step % ids.length], count };
        const tensors = { parameter, firstMoment, secondMoment, gradient, compact };
        step++;
        backend.ops.adamw({
          rows,
          columns: hiddenSize,
          ...tensors,
          step,
          ...hyperparameters,
          gradientScale: 1,
        });
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
