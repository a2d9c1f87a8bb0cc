import type { AbortSignalLike, Backend } from "@flash-moe/core";

/** Batches shorter than this measure the clock and the way to the device more than the work. */
const batchSeconds = 0.02;

/** Enqueued at once at most: a device may hold the buffers of each until it is through. */
const maxCalls = 100;

const maxBatches = 25;
const minBatches = 3;

export interface Measurement {
  /** Median over the batches, of one call. */
  readonly seconds: number;
  readonly fastestSeconds: number;
  /** Calls that were timed. */
  readonly calls: number;
}

/**
 * How long one call of `work` takes, device and all: warmed up, called often enough that the clock does not
 * matter, in several batches for about `budgetSeconds`; only once, and cold, if that takes longer alone.
 */
export async function measure(
  backend: Backend,
  work: () => void,
  budgetSeconds: number,
  signal: AbortSignalLike,
): Promise<Measurement> {
  const batch = async (calls: number): Promise<number> => {
    const start = performance.now();
    for (let call = 0; call < calls; call++) work();
    await backend.sync();
    signal.throwIfAborted();
    return (performance.now() - start) / 1000 / calls;
  };
  await backend.sync();
  // Twice: what compiles on the first call, the engine or the device, is not what is asked.
  const first = await batch(1);
  if (first > budgetSeconds) return { seconds: first, fastestSeconds: first, calls: 1 };
  const single = await batch(1);
  const calls = Math.max(1, Math.min(maxCalls, Math.ceil(batchSeconds / single)));
  const batches = Math.floor(budgetSeconds / (single * calls));
  const times: number[] = [];
  for (let i = 0; i < Math.max(minBatches, Math.min(maxBatches, batches)); i++)
    times.push(await batch(calls));
  times.sort((a, b) => a - b);
  return { seconds: median(times), fastestSeconds: times[0], calls: calls * times.length };
}

/** Of ascending numbers. */
function median(sorted: readonly number[]): number {
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
