import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

// As it is before this thread is kept on one of them.
const cores = availableParallelism();

/** Whether threads can be placed here: Linux, with taskset. */
export function canPlaceThreads() {
  try {
    execFileSync("taskset", ["-p", String(process.pid)], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/**
 * Keeps the threads of this process that work most during `work` on a core each. Left to itself, a scheduler may have two
 * on one core for milliseconds after every pause, and which library that happens to is chance.
 * @param {number} count @param {() => Promise<unknown>} work
 */
export async function placeThreads(count, work) {
  const before = new Map(threads().map((thread) => [thread, nanoseconds(thread)]));
  await work();
  const worked = threads()
    .map((thread) => ({ thread, time: nanoseconds(thread) - (before.get(thread) ?? 0) }))
    .sort((a, b) => b.time - a.time);
  for (const [place, { thread }] of worked.slice(0, count).entries()) {
    const core = String(place % cores);
    execFileSync("taskset", ["-pc", core, thread], { stdio: "ignore" });
  }
}

function threads() {
  return readdirSync("/proc/self/task");
}

/** @param {string} thread */
function nanoseconds(thread) {
  try {
    return Number(readFileSync(`/proc/self/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  } catch {
    // It has ended.
    return 0;
  }
}
