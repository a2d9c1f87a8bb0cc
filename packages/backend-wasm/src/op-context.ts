import type { ScratchSizes, TaskKernels } from "./kernels.js";
import type { Check } from "./step.js";

/** What an op is lent besides its call: it says what is to be done, and returns before it is. */
export interface OpContext {
  readonly sizes: ScratchSizes;
  /** The address of `bytes` bytes for the steps of this op. `bytes` may come from a kernel, signed. */
  scratch(bytes: number): number;
  /** The address of as much for each thread, one behind the other, for the next step alone. */
  threadScratch(bytesPerThread: number): number;
  /**
   * A step of `tasks` tasks (none is no step), which takes one core about so many microseconds. Without an error all
   * steps run, after those before them; where `scratch` throws OUT_OF_MEMORY none does.
   */
  step<Name extends keyof TaskKernels>(
    name: Name,
    tasks: number,
    microseconds: number,
    args: Parameters<TaskKernels[Name]>,
    check?: Check,
  ): void;
  /** A step that sets bytes to zero. */
  clear(address: number, bytes: number): void;
}
