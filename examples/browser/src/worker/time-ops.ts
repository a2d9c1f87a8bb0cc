import type { Backend } from "@flash-moe/core";
import { callOp, type LayerOp } from "./layer-ops.js";

/** What a measurement may take, beyond its first two runs. */
const budgetMilliseconds = 600;
const maxRuns = 15;

export interface OpTimes {
  /** Of each op, the median. */
  readonly milliseconds: readonly number[];
  readonly runs: number;
  readonly clock: "gpu" | "wall";
}

/** Times each op by itself: from its call until the device is done. The first run of all is not counted. */
export async function timeOps(
  backend: Backend,
  ops: readonly LayerOp[],
  signal: AbortSignal,
): Promise<OpTimes> {
  const samples: number[][] = ops.map(() => []);
  const end = performance.now() + budgetMilliseconds;
  let runs = -1;
  while (runs < 1 || (runs < maxRuns && performance.now() < end)) {
    for (const [index, op] of ops.entries()) {
      signal.throwIfAborted();
      await backend.sync();
      const before = performance.now();
      callOp(backend, op);
      await backend.sync();
      if (runs >= 0) samples[index].push(performance.now() - before);
    }
    runs++;
  }
  return { milliseconds: samples.map(median), runs, clock: "wall" };
}

/** Times a piece of work as a whole, until the device is done. The first run is not counted. */
export async function timeWhole(backend: Backend, signal: AbortSignal, work: () => void): Promise<number[]> {
  const samples: number[] = [];
  const end = performance.now() + budgetMilliseconds;
  for (let run = 0; run <= 1 || (run <= maxRuns && performance.now() < end); run++) {
    signal.throwIfAborted();
    await backend.sync();
    const before = performance.now();
    work();
    await backend.sync();
    if (run > 0) samples.push(performance.now() - before);
  }
  return samples;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
