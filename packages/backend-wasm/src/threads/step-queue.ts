import type { FlashMoeError } from "@flash-moe/core";
import type { Check } from "../step.js";
import { controlWords, queueWords, slotCount, slotHeader, slotWords, type stepKinds } from "./queue-words.js";

const { PUBLISHED, COMPLETED, BUSY, WAKE, REMAINING, PENDING, WRONG, REPORTED, REPORT } = queueWords;
const none = 0x7fff_ffff;

/** A step of the queue: a kernel, or one of `stepKinds` with its arguments. */
export interface QueuedStep {
  readonly kernel: number | (typeof stepKinds)[keyof typeof stepKinds];
  readonly tasks: number;
  readonly args: readonly number[];
  readonly check?: Check | undefined;
}

/**
 * The calling thread's end of the queue of steps that the workers run in order; worker/worker.js is the other. What
 * does not fit the shared slots waits in an array here until `refill`.
 */
export class StepQueue {
  readonly control: Int32Array = new Int32Array(new SharedArrayBuffer(controlWords * 4));
  readonly slots: Float64Array = new Float64Array(new SharedArrayBuffer(slotCount * slotWords * 8));
  #written = 0;
  #waiting: QueuedStep[] = [];
  /** Makes the step that has the workers ask for `refill`. */
  readonly #refillSignal: QueuedStep;
  readonly #checks: { step: number; check: Check }[] = [];

  constructor(refillSignal: QueuedStep) {
    this.#refillSignal = refillSignal;
  }

  /** Whether everything is done. */
  get idle(): boolean {
    return this.#waiting.length === 0 && Atomics.load(this.control, COMPLETED) === this.#written;
  }

  /** Whether steps wait for `refill`. */
  get overflowing(): boolean {
    return this.#waiting.length > 0;
  }

  add(steps: readonly QueuedStep[]): void {
    for (const step of steps) {
      if (this.#waiting.length > 0 || !this.#hasRoom()) this.#waiting.push(step);
      else this.#write(step);
    }
    this.#publish();
  }

  refill(): void {
    let moved = 0;
    while (moved < this.#waiting.length && this.#hasRoom()) this.#write(this.#waiting[moved++]);
    this.#waiting.splice(0, moved);
    this.#publish();
  }

  /** Says that the task of the host step that runs now is done. */
  finishHostStep(): void {
    if (Atomics.sub(this.control, PENDING, 1) !== 1) return;
    const next = (Atomics.load(this.control, COMPLETED) + 1) | 0;
    Atomics.store(this.control, COMPLETED, next);
    if (Atomics.load(this.control, PUBLISHED) === next) Atomics.store(this.control, BUSY, 0);
    else this.#begin(next);
  }

  /** What the first check says that has failed since the last call, if one has. */
  takeReport(): FlashMoeError | undefined {
    // First: what is done by now has been reported by now.
    const completed = Atomics.load(this.control, COMPLETED);
    let error: FlashMoeError | undefined;
    if (Atomics.load(this.control, REPORTED) === 1) {
      const step = this.control[REPORT];
      const found = this.#checks.find((entry) => entry.step === step);
      error = found?.check.describe(this.control[REPORT + 1], this.control[REPORT + 2]);
      Atomics.store(this.control, REPORTED, 0);
    }
    let done = 0;
    while (done < this.#checks.length && ((this.#checks[done].step - completed) | 0) < 0) done++;
    this.#checks.splice(0, done);
    return error;
  }

  /** One slot is kept for the signal that asks for `refill`. */
  #hasRoom(): boolean {
    const used = (this.#written - Atomics.load(this.control, COMPLETED)) | 0;
    if (used < slotCount - 2) return true;
    if (used === slotCount - 2) this.#write(this.#refillSignal);
    return false;
  }

  #write({ kernel, tasks, args, check }: QueuedStep): void {
    const at = (this.#written & (slotCount - 1)) * slotWords;
    this.slots[at] = kernel;
    this.slots[at + 1] = tasks;
    this.slots[at + 2] = check?.values ?? 0;
    this.slots[at + 3] = args.length;
    this.slots.set(args, at + slotHeader);
    if (check !== undefined) this.#checks.push({ step: this.#written, check });
    this.#written = (this.#written + 1) | 0;
  }

  #publish(): void {
    Atomics.store(this.control, PUBLISHED, this.#written);
    if (Atomics.compareExchange(this.control, BUSY, 0, 1) !== 0) return;
    const next = Atomics.load(this.control, COMPLETED);
    if (next === this.#written) Atomics.store(this.control, BUSY, 0);
    else this.#begin(next);
  }

  /** As in worker/worker.js. */
  #begin(step: number): void {
    const tasks = this.slots[(step & (slotCount - 1)) * slotWords + 1];
    Atomics.store(this.control, WRONG, none);
    Atomics.store(this.control, PENDING, tasks);
    Atomics.store(this.control, REMAINING, tasks);
    Atomics.add(this.control, WAKE, 1);
    Atomics.notify(this.control, WAKE, tasks);
  }
}
