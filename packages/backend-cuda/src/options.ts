import { checkOptions, takes } from "@flash-moe/core";

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
export function checkCudaOptions(options: CudaOptions): void {
  checkOptions("cuda", options, {
    device: takes.wholeNumber(0),
    memoryLimitBytes: takes.wholeNumber(0),
    graphs: takes.flag,
    binary: takes.text,
  });
}
