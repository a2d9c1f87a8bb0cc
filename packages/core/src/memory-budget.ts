import type { MemoryReport } from "./backend.js";
import { FlashMoeError } from "./errors.js";

/** Counts the bytes of one device and refuses what cannot fit. */
export class MemoryBudget {
  readonly limitBytes: number | null;
  #live = 0;
  #scratch = 0;
  #peak = 0;
  #reclaim: (() => void) | undefined;

  /** `limitBytes` null: unlimited as far as is known. */
  constructor(limitBytes: number | null) {
    this.limitBytes = limitBytes;
  }

  /** `reclaim` is called before something is refused: it may release scratch that is only kept for later. */
  setReclaim(reclaim: () => void): void {
    this.#reclaim = reclaim;
  }

  /** Counts a buffer. OUT_OF_MEMORY, and nothing counted, if it does not fit. */
  reserve(bytes: number, what: string): void {
    this.#check(bytes, what);
    this.#live += bytes;
    this.#notePeak();
  }

  /** The opposite of `reserve`. */
  release(bytes: number): void {
    this.#live -= bytes;
  }

  /** Counts memory for intermediates. OUT_OF_MEMORY, and nothing counted, if it does not fit. */
  reserveScratch(bytes: number, what: string): void {
    this.#check(bytes, what);
    this.#scratch += bytes;
    this.#notePeak();
  }

  /** The opposite of `reserveScratch`. */
  releaseScratch(bytes: number): void {
    this.#scratch -= bytes;
  }

  /** Runs `work` with `bytes` of scratch counted. */
  withScratch<Result>(bytes: number, what: string, work: () => Result): Result {
    this.reserveScratch(bytes, what);
    try {
      return work();
    } finally {
      this.releaseScratch(bytes);
    }
  }

  report(): MemoryReport {
    return {
      liveBytes: this.#live,
      scratchBytes: this.#scratch,
      peakBytes: this.#peak,
      limitBytes: this.limitBytes,
    };
  }

  #check(bytes: number, what: string): void {
    if (this.limitBytes === null) return;
    if (bytes > this.#left(this.limitBytes)) this.#reclaim?.();
    const left = this.#left(this.limitBytes);
    if (bytes > left) {
      throw new FlashMoeError(
        "OUT_OF_MEMORY",
        `${what} needs ${bytes} bytes; ${left} bytes are left of the budget of ${this.limitBytes}`,
      );
    }
  }

  #left(limitBytes: number): number {
    return Math.max(0, limitBytes - this.#live - this.#scratch);
  }

  #notePeak(): void {
    this.#peak = Math.max(this.#peak, this.#live + this.#scratch);
  }
}
