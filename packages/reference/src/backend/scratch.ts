import { FlashMoeError, type MemoryBudget } from "@flash-moe/core";

/** Counts the memory that one call of an op needs besides its buffers. */
export interface Scratch {
  /** To be called before `bytes` are allocated. OUT_OF_MEMORY if the budget has no room for them. */
  count(bytes: number): void;
}

/**
 * Runs `work` with its scratch counted until it returns. OUT_OF_MEMORY where the budget is too small, or
 * where the engine itself refuses.
 */
export function withScratch(budget: MemoryBudget, op: string, work: (scratch: Scratch) => void): void {
  let counted = 0;
  try {
    work({
      count(bytes) {
        budget.reserveScratch(bytes, `scratch of ${op}`);
        counted += bytes;
      },
    });
  } catch (error) {
    throw asOutOfMemory(error, `scratch of ${op}`, counted, budget);
  } finally {
    budget.releaseScratch(counted);
  }
}

/**
 * The engine's RangeError for an array that it cannot allocate, as OUT_OF_MEMORY; other errors as they are.
 * `bytes` are what was asked for, already counted.
 */
export function asOutOfMemory(error: unknown, what: string, bytes: number, budget: MemoryBudget): unknown {
  if (!(error instanceof RangeError)) return error;
  const { limitBytes, liveBytes, scratchBytes } = budget.report();
  const left =
    limitBytes === null
      ? ""
      : `; ${limitBytes - liveBytes - scratchBytes + bytes} bytes are left of the budget`;
  return new FlashMoeError(
    "OUT_OF_MEMORY",
    `${what} needs ${bytes} bytes, which the JavaScript engine does not give${left} (${error.message})`,
    { cause: error },
  );
}
