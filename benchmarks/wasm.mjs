// The WebAssembly backend against what else runs a layer on a CPU from JavaScript: pnpm bench:wasm [sizes] [rounds]
//
// Whole layer and routed part alone (router and experts), f32, forward, and forward with backward where a library has
// gradients; 1 and 2 threads. Every library is in a process of its own. They are checked equal first, then they take
// turns, round after round, so that what else the machine does falls on all of them; medians over the rounds.
// Stores results/peers-wasm.json.
import { mkdirSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { describeCommit, describeMachine } from "./machine.mjs";
import { Contender } from "./peers/contender.mjs";
import { installPeers } from "./peers/install.mjs";
import { describeSize } from "./peers/problem.mjs";
import { printTable } from "./print-table.mjs";
import { median } from "./statistics.mjs";

const allSizes = [
  { tokens: 1, hiddenSize: 256, numExperts: 65_536, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 4_096, topK: 16 },
  { tokens: 256, hiddenSize: 512, numExperts: 16_384, topK: 32 },
  { tokens: 64, hiddenSize: 256, numExperts: 1_048_576, topK: 32 },
];
const ours = "flash-moe wasm";
const libraries = [ours, "onnxruntime-node CPU", "onnxruntime-web wasm", "jax-js wasm"];
const operations = ["forward", "gradient", "backward"];
/** A library's spinning threads are given time to rest before the next one's turn. */
const restMilliseconds = 30;
/** One sample is as many calls as fill this time. */
const sampleMilliseconds = 10;

const sizes = process.argv[2] ? process.argv[2].split(",").map((index) => allSizes[Number(index)]) : allSizes;
const rounds = Number(process.argv[3] ?? 21);
const versions = installPeers();

const rows = [];
for (const size of sizes) {
  for (const threads of [1, 2]) rows.push(...(await measureSize(size, threads)));
}
print(rows);
store(rows);

/** @param {import("./peers/problem.mjs").Size} size @param {number} threads */
async function measureSize(size, threads) {
  const contenders = libraries.map((library) => new Contender(library, threads, size));
  const found = [];
  for (const part of ["layer", "routed"]) {
    say(`${describeSize(size)}, ${threads} thread${threads > 1 ? "s" : ""}, ${part}: preparing`);
    const outcomes = [];
    for (const contender of contenders) outcomes.push(await contender.begin(part, size.tokens, outcomes[0]?.result, operations));
    const jobs = [];
    for (const { contender, row, runs } of outcomes) {
      found.push({ ...size, threads, part, ...row });
      for (const operation of runs) jobs.push({ contender, operation, row: found.at(-1), samples: [], calls: 1 });
    }
    for (let round = -2; round < rounds; round++) {
      say(`${describeSize(size)}, threads ${threads}, ${part}: round ${Math.max(0, round + 1)} of ${rounds}`);
      for (const job of jobs) {
        const { contender, operation, calls } = job;
        const milliseconds = await contender.ask("time", { operation, calls });
        if (round < 0) job.calls = Math.max(1, Math.min(100, Math.round(sampleMilliseconds / milliseconds)));
        else job.samples.push(milliseconds);
        await setTimeout(restMilliseconds);
      }
    }
    for (const { operation, row, samples } of jobs) {
      row[operation] = { milliseconds: median(samples), best: Math.min(...samples) };
    }
  }
  for (const contender of contenders) contender.end();
  say("");
  return found;
}

/** Replaces the last line of a terminal. @param {string} line */
function say(line) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

function print(rows) {
  for (const { tokens, hiddenSize, numExperts, topK } of sizes) {
    console.log(`\n${describeSize({ tokens, hiddenSize, numExperts, topK })}`);
    const here = rows.filter((row) => row.tokens === tokens && row.numExperts === numExperts);
    const table = here.map((row) => {
      const base = here.find(
        ({ library, threads, part }) => library === ours && threads === row.threads && part === row.part,
      );
      const cell = (operation) => {
        if (row[operation] === undefined) return "";
        const ratio = row[operation].milliseconds / base[operation]?.milliseconds;
        return `${row[operation].milliseconds.toFixed(3)} ms ${ratio.toFixed(2).padStart(6)}`;
      };
      return [
        `${row.part}, ${row.threads} thread${row.threads > 1 ? "s" : ""}, ${row.library}`,
        ...operations.map(cell),
        row.failed ?? "",
      ];
    });
    printTable([["", "forward, of ours", "with backward", "backward alone", ""], ...table]);
  }
}

function store(rows) {
  const file = new URL("results/peers-wasm.json", import.meta.url);
  mkdirSync(new URL(".", file), { recursive: true });
  const contents = { rounds, versions, machine: describeMachine(), commit: describeCommit(), rows };
  writeFileSync(file, `${JSON.stringify(contents, undefined, 2)}\n`);
  console.log("\nstored in benchmarks/results/peers-wasm.json");
}
