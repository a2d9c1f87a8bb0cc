import { type Backend, timeKernels } from "@flash-moe/core";
import { callOp, type LayerOp } from "./layer-ops.js";

/** What a measurement may take, beyond its first two runs. */
const budgetMilliseconds = 600;
const maxRuns = 15;

export interface OpTimes {
  /** Of each op. */
  readonly milliseconds: readonly number[];
  readonly runs: number;
  readonly clock: "gpu" | "wall";
}

/** Times each op by itself, by the device's own clock if it lets us read it. The first run of all is not counted. */
export async function timeOps(
  backend: Backend,
  ops: readonly LayerOp[],
  signal: AbortSignal,
): Promise<OpTimes> {
  const clock = backend.capabilities.timestamps ? "gpu" : "wall";
  const timeOp = clock === "gpu" ? timeOnDevice : timeByWall;
  const samples: number[][] = ops.map(() => []);
  const end = performance.now() + budgetMilliseconds;
  let runs = -1;
  while (runs < 1 || (runs < maxRuns && performance.now() < end)) {
    for (const [index, op] of ops.entries()) {
      signal.throwIfAborted();
      const milliseconds = await timeOp(backend, op);
      if (runs >= 0) samples[index].push(milliseconds);
    }
    runs++;
  }
  // Browsers round the device's clock to 0.1 ms: over several runs the mean tells more than the median then.
  return { milliseconds: samples.map(clock === "gpu" ? mean : median), runs, clock };
}

/** What its kernels took, together. */
async function timeOnDevice(backend: Backend, op: LayerOp): Promise<number> {
  const kernels = await timeKernels(backend, () => callOp(backend, op));
  return kernels.reduce((sum, { nanoseconds }) => sum + nanoseconds, 0) / 1e6;
}

/** From its call until the device is done. */
async function timeByWall(backend: Backend, op: LayerOp): Promise<number> {
  await backend.sync();
  const before = performance.now();
  callOp(backend, op);
  await backend.sync();
  return performance.now() - before;
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

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
