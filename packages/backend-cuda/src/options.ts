import { FlashMoeError } from "@flash-moe/core";

export interface CudaOptions {
  /** Which GPU, counted from 0 as the driver does (CUDA_VISIBLE_DEVICES applies). Default: the first that will do. */
  readonly device?: number;
  /** Bytes that buffers and intermediates may take together. Default: what is free on the GPU when it is opened. */
  readonly memoryLimitBytes?: number;
  /** Whether repeated small calls are captured into CUDA graphs. Default true. */
  readonly graphs?: boolean;
  /**
   * Path of another build of the addon, for tests: the kernels also run on a CPU, without a GPU, and only a build
   * that is named here does that.
   *
   * @internal
   */
  readonly binary?: string;
}

/** INVALID_ARGUMENT for options that are not as described. */
export function checkOptions(options: CudaOptions): void {
  const { device, memoryLimitBytes, graphs } = options;
  if (device !== undefined && !isCount(device)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `device is ${String(device)}; takes the number of a GPU, from 0 on`,
    );
  }
  if (memoryLimitBytes !== undefined && !isCount(memoryLimitBytes)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `memoryLimitBytes is ${String(memoryLimitBytes)}; takes a whole number of bytes from 0 on`,
    );
  }
  if (graphs !== undefined && typeof graphs !== "boolean") {
    throw new FlashMoeError("INVALID_ARGUMENT", `graphs is ${String(graphs)}; takes true or false`);
  }
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
