// Libraries that take turns at the same layer: checked equal first, then measured round after round, so that what else
// the machine does falls on all of them.
import { mkdirSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { describeCommit, describeMachine } from "../machine.mjs";
import { printTable } from "../print-table.mjs";
import { median } from "../statistics.mjs";
import { compareOutputs } from "./compare-outputs.mjs";
import { describeSize } from "./problem.mjs";

/**
 * @typedef {{ library: string, ask(question: "prepare" | "output" | "time" | "place", value?: unknown): Promise<any>,
 *   end(): void }} Contender
 * @typedef {import("./problem.mjs").Size} Size
 */

const operations = ["forward", "gradient", "backward"];
/** A library's spinning threads are given time to rest before the next one's turn. */
const restMilliseconds = 30;
/** One sample is as many calls as fill this time, and before the first one as many as fill the other. */
const sampleMilliseconds = 10;
const warmUpMilliseconds = 600;
/** So long a library works to show which of its threads do. */
const placeMilliseconds = 200;

/**
 * Measures whole layer and routed part of one size; the first contender is what the others are compared with.
 * @param {Size} size
 * @param {{ threads?: number, runtime?: string, placed?: boolean }} setting what tells these rows from others; `placed`:
 *   threads are kept on a core each, which contenders of a process of their own can do
 * @param {Contender[]} contenders @param {number} rounds
 */
export async function compareLibraries(size, setting, contenders, rounds) {
  const title = [describeSize(size), ...Object.entries(setting).map((entry) => entry.join(" "))].join(", ");
  const found = [];
  for (const part of ["layer", "routed"]) {
    const outcomes = [];
    for (const contender of contenders) {
      say(`${title}, ${part}: preparing ${contender.library}`);
      outcomes.push(await begin(contender, part, size.tokens, outcomes[0]?.result));
    }
    const jobs = [];
    for (const { contender, row, runs } of outcomes) {
      found.push({ ...size, ...setting, part, ...row });
      for (const operation of runs) {
        jobs.push({ contender, operation, row: found.at(-1), samples: [], calls: 1, failed: false });
      }
    }
    for (const job of jobs) {
      say(`${title}, ${part}: warming up ${job.contender.library}`);
      await orTell(job, async () => {
        job.calls = await warmUp(job);
      });
    }
    for (const job of setting.placed ? jobs : []) {
      const { contender, operation, failed } = job;
      if (operation !== "forward" || failed) continue;
      const calls = Math.ceil((placeMilliseconds / sampleMilliseconds) * job.calls);
      await orTell(job, () => contender.ask("place", { operation, calls }));
    }
    for (let round = 1; round <= rounds; round++) {
      say(`${title}, ${part}: round ${round} of ${rounds}`);
      for (const job of jobs) {
        const { contender, operation, calls } = job;
        if (job.failed) continue;
        await orTell(job, async () => {
          job.samples.push(await contender.ask("time", { operation, calls }));
        });
        await setTimeout(restMilliseconds);
      }
    }
    for (const { operation, row, samples } of jobs) {
      if (samples.length === rounds)
        row[operation] = { milliseconds: median(samples), best: Math.min(...samples) };
    }
  }
  for (const contender of contenders) await contender.end();
  say("");
  return found;
}

/** Prepares and checks it. A library that cannot, or computes something else, is not measured but told. */
async function begin(contender, part, tokens, expected) {
  const { library } = contender;
  try {
    const started = performance.now();
    const can = await contender.ask("prepare", part);
    const result = await contender.ask("output");
    const firstOutputMilliseconds = performance.now() - started;
    const comparison = expected && compareOutputs(result, expected, tokens);
    if (comparison && !comparison.equal) {
      return { contender, row: { library, failed: "its output differs", ...comparison }, runs: [] };
    }
    const runs = operations.filter((operation) => can.includes(operation));
    const { relativeError, otherExperts } = comparison ?? {};
    return {
      contender,
      row: { library, relativeError, otherExperts, firstOutputMilliseconds },
      runs,
      result,
    };
  } catch (error) {
    return { contender, row: { library, failed: error.message.split("\n")[0] }, runs: [] };
  }
}

/** An operation that fails on the way is measured no further, and its reason told. */
async function orTell(job, work) {
  const { operation, row } = job;
  try {
    await work();
  } catch (error) {
    job.failed = true;
    row.failed ??= `${operation}: ${error.message.split("\n")[0]}`;
  }
}

/** Runs until engines have compiled what they will; how many calls make a sample then. */
async function warmUp({ contender, operation }) {
  const start = performance.now();
  let calls = 1;
  let milliseconds;
  do {
    milliseconds = await contender.ask("time", { operation, calls });
    calls = Math.max(1, Math.min(200, Math.round(sampleMilliseconds / milliseconds)));
  } while (performance.now() - start < warmUpMilliseconds);
  return calls;
}

/** @param {Size[]} sizes @param {Awaited<ReturnType<typeof compareLibraries>>} rows @param {string} ours */
export function printComparison(sizes, rows, ours) {
  for (const size of sizes) {
    console.log(`\n${describeSize(size)}`);
    const here = rows.filter((row) => row.tokens === size.tokens && row.numExperts === size.numExperts);
    const table = here.map((row) => {
      const base = here.find(
        ({ library, threads, placed, runtime, part }) =>
          library === ours &&
          threads === row.threads &&
          placed === row.placed &&
          runtime === row.runtime &&
          part === row.part,
      );
      const cell = (operation) => {
        if (row[operation] === undefined) return "";
        const ratio = row[operation].milliseconds / base[operation]?.milliseconds;
        return `${row[operation].milliseconds.toFixed(3)} ms ${ratio.toFixed(2).padStart(6)}`;
      };
      const threads = row.threads === undefined ? "" : `, ${row.threads} thread${row.threads > 1 ? "s" : ""}`;
      const placed = row.placed ? " on a core each" : "";
      const runtime = row.runtime === undefined ? "" : `, ${row.runtime}`;
      return [
        `${row.part}${threads}${placed}${runtime}, ${row.library}`,
        ...operations.map(cell),
        row.failed ?? "",
      ];
    });
    printTable([["", "forward, of ours", "with backward", "backward, used rows", ""], ...table]);
  }
}

/** Stores what was found, with machine and commit. @param {string} name @param {object} contents */
export function storeComparison(name, contents) {
  const file = new URL(`../results/${name}.json`, import.meta.url);
  mkdirSync(new URL(".", file), { recursive: true });
  const all = { machine: describeMachine(), commit: describeCommit(), ...contents };
  writeFileSync(file, `${JSON.stringify(all, undefined, 2)}\n`);
  console.log(`\nstored in benchmarks/results/${name}.json`);
}

/** Replaces the last line of a terminal. @param {string} line */
function say(line) {
  if (process.stderr.isTTY)
    process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`);
}
