import { FlashMoeError, type MemoryBudget } from "@flash-moe/core";
import type { CommandQueue } from "./command-queue.js";
import type { ErrorScopes } from "./error-scopes.js";

/**
 * Buffers that are lent and come back: intermediates of ops, and what reads are mapped from. One that comes back
 * serves the next borrower at once: the device runs commands in the order of their submission.
 */
export class ScratchPool {
  readonly #queue: CommandQueue;
  readonly #budget: MemoryBudget;
  readonly #scopes: ErrorScopes;
  readonly #usage: number;
  readonly #largestBytes: number;
  readonly #free: GPUBuffer[] = [];

  /** Nothing is rounded up beyond `largestBytes`, which a device may refuse. */
  constructor(
    queue: CommandQueue,
    budget: MemoryBudget,
    scopes: ErrorScopes,
    usage: number,
    largestBytes: number,
  ) {
    this.#queue = queue;
    this.#budget = budget;
    this.#scopes = scopes;
    this.#usage = usage;
    this.#largestBytes = largestBytes;
  }

  /** A buffer of at least `bytes`, with anything in it. OUT_OF_MEMORY if the budget does not allow it. */
  acquire(bytes: number, what: string): GPUBuffer {
    const wanted = Math.min(roundUp(bytes), Math.max(bytes, this.#largestBytes));
    let best = -1;
    for (let n = 0; n < this.#free.length; n++) {
      const { size } = this.#free[n];
      if (size >= wanted && size <= 2 * wanted && (best < 0 || size < this.#free[best].size)) best = n;
    }
    if (best >= 0) return this.#free.splice(best, 1)[0];
    this.#budget.reserveScratch(wanted, what);
    try {
      return this.#scopes.watch(what, ["out-of-memory", "validation"], () =>
        this.#queue.device.createBuffer({ label: what, size: wanted, usage: this.#usage }),
      );
    } catch (error) {
      this.#budget.releaseScratch(wanted);
      throw FlashMoeError.from(error, "OUT_OF_MEMORY", what);
    }
  }

  release(buffer: GPUBuffer): void {
    this.#free.push(buffer);
  }

  /** Instead of `release`, for a buffer that nobody is to borrow again. */
  discard(buffer: GPUBuffer): void {
    this.#budget.releaseScratch(buffer.size);
    this.#queue.destroy(buffer);
  }

  /** Gives back what nobody has borrowed. */
  clear(): void {
    for (const buffer of this.#free.splice(0)) this.discard(buffer);
  }
}

/** Up to an eighth more, so that sizes that differ a little can share a buffer. */
function roundUp(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(step, Math.ceil(bytes / step) * step);
}
