import type { BackendRuntime, OpName } from "@flash-moe/core";
import type { Instance } from "./instance.js";
import type { ScratchSizes, TaskKernels } from "./kernels.js";
import type { OpContext } from "./op-context.js";
import { byteTime, tasksOf, thingsPerTask } from "./partition.js";
import { type Check, makeStep, type Step } from "./step.js";

interface Block {
  readonly address: number;
  readonly bytes: number;
}

/**
 * The steps of an op, as it says them. Its scratch is counted while it does, and then free for the ops after it: all
 * steps run in order, so they come after those of this one.
 */
export class OpPlan implements OpContext {
  readonly sizes: ScratchSizes;
  readonly steps: Step[] = [];
  /** What they take one core. */
  microseconds = 0;
  readonly #what: string;
  readonly #instance: Instance;
  readonly #budget: BackendRuntime["budget"];
  readonly #taken: Block[] = [];
  readonly #takenForStep: Block[] = [];

  constructor(name: OpName, instance: Instance, budget: BackendRuntime["budget"]) {
    this.sizes = instance.kernels;
    this.#what = `scratch of ${name}`;
    this.#instance = instance;
    this.#budget = budget;
  }

  scratch(bytes: number): number {
    return this.#take(bytes < 0 ? bytes >>> 0 : bytes, this.#taken);
  }

  threadScratch(bytesPerThread: number): number {
    const bytes = bytesPerThread < 0 ? bytesPerThread >>> 0 : bytesPerThread;
    return this.#take(bytes * (this.#instance.crew?.threads ?? 1), this.#takenForStep);
  }

  step<Name extends keyof TaskKernels>(
    name: Name,
    tasks: number,
    microseconds: number,
    args: Parameters<TaskKernels[Name]>,
    check?: Check,
  ): void {
    this.#giveBack(this.#takenForStep);
    if (tasks === 0) return;
    this.steps.push(makeStep(name, tasks, microseconds, args, check));
    this.microseconds += microseconds;
  }

  clear(address: number, bytes: number): void {
    const perTask = thingsPerTask(bytes, byteTime, 4096);
    this.step("clear", tasksOf(bytes, perTask), bytes * byteTime, [address, bytes, perTask]);
  }

  /** To be called when the op has said all, or has thrown. */
  release(): void {
    this.#giveBack(this.#takenForStep);
    this.#giveBack(this.#taken);
  }

  #take(bytes: number, taken: Block[]): number {
    this.#budget.reserveScratch(bytes, this.#what);
    let address: number;
    try {
      address = this.#instance.memory.allocate(bytes, this.#what);
    } catch (error) {
      this.#budget.releaseScratch(bytes);
      throw error;
    }
    taken.push({ address, bytes });
    return address;
  }

  #giveBack(taken: Block[]): void {
    // One by one: V8 empties an array by its length slowly.
    for (let block = taken.pop(); block !== undefined; block = taken.pop()) {
      this.#instance.memory.release(block.address, block.bytes);
      this.#budget.releaseScratch(block.bytes);
    }
  }
}
