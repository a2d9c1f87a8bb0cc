import type { FlashMoeError } from "@flash-moe/core";
import { type KernelArguments, type Kernels, type TaskKernels, taskKernels } from "./kernels.js";

/** What to say of a value that is not as it must be, which only a kernel finds. */
export interface Check {
  /** Where the i32 values are. */
  readonly values: number;
  /** The error for the value at a place. */
  describe(place: number, value: number): FlashMoeError;
}

/** One kernel, in tasks that may run at the same time. The steps of all ops run one after the other. */
export interface Step {
  /** The place of its name in `taskKernels`. */
  readonly kernel: number;
  /** At least 1. */
  readonly tasks: number;
  readonly args: KernelArguments;
  /** About what a task takes. */
  readonly taskMicroseconds: number;
  readonly check: Check | undefined;
}

const places = new Map(taskKernels.map((name, place) => [name, place]));

/** `microseconds`: what all tasks take one core. */
export function makeStep<Name extends keyof TaskKernels>(
  name: Name,
  tasks: number,
  microseconds: number,
  args: Parameters<TaskKernels[Name]>,
  check?: Check,
): Step {
  return { kernel: places.get(name)!, tasks, args, taskMicroseconds: microseconds / tasks, check };
}

/** Runs a step here and now; returns what its check says, if anything. */
export function runStep(
  step: Step,
  kernels: Kernels,
  valueAt: (address: number) => number,
): FlashMoeError | undefined {
  const kernel = kernels[taskKernels[step.kernel]];
  let wrong = -1;
  for (let task = 0; task < step.tasks; task++) {
    const found = kernel(...step.args, task, 0) ?? -1;
    if (wrong < 0) wrong = found;
  }
  if (wrong < 0 || step.check === undefined) return undefined;
  return step.check.describe(wrong, valueAt(step.check.values + wrong * 4));
}
