import { FlashMoeError } from "@flash-moe/core";

/** Catches what the device says of our own calls, late, and hands it on under the name of what was being done. */
export class ErrorScopes {
  readonly #device: GPUDevice;
  readonly #fail: (error: FlashMoeError) => void;
  readonly #pending = new Set<Promise<void>>();

  constructor(device: GPUDevice, fail: (error: FlashMoeError) => void) {
    this.#device = device;
    this.#fail = fail;
  }

  /** Runs `work`; an error of these kinds that it causes is reported as an error of `what`. */
  watch<Result>(what: string, filters: readonly GPUErrorFilter[], work: () => Result): Result {
    for (const filter of filters) this.#device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      for (const filter of filters.toReversed()) {
        const told = this.#device.popErrorScope().then(
          (error) => {
            if (error) this.#fail(asFlashMoeError(what, filter, error));
          },
          // The device is lost, which is reported by itself.
          () => {},
        );
        this.#pending.add(told);
        void told.then(() => this.#pending.delete(told));
      }
    }
  }

  /** Resolves when all that was watched so far has been judged. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }
}

function asFlashMoeError(what: string, filter: GPUErrorFilter, error: GPUError): FlashMoeError {
  const code = filter === "out-of-memory" ? "OUT_OF_MEMORY" : "BACKEND_FAILED";
  return new FlashMoeError(code, `${what}: ${error.message}`, { cause: error });
}
