/** Timers are in every engine, but in no type that this package may assume. */
interface Timers {
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

export function engineTimers(): Timers {
  return globalThis as unknown as Timers;
}

/** The work hung: what it ran on cannot be used any more. */
class TimeLimitExceeded extends Error {
  override readonly name = "TimeLimitExceeded";
}

/** What `work` resolves to; rejects when it takes longer than `milliseconds`, so that a hang is a failure. */
export async function withTimeLimit<Result>(
  milliseconds: number,
  what: string,
  work: () => Promise<Result>,
): Promise<Result> {
  const timers = engineTimers();
  let timer: unknown;
  const limit = new Promise<never>((_, reject) => {
    timer = timers.setTimeout(
      () => reject(new TimeLimitExceeded(`${what} did not finish within ${milliseconds} ms`)),
      milliseconds,
    );
  });
  try {
    return await Promise.race([work(), limit]);
  } finally {
    timers.clearTimeout(timer);
  }
}
