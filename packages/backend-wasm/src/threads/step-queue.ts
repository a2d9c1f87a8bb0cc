import type { FlashMoeError } from "@flash-moe/core";
import type { KernelArguments } from "../kernels.js";
import type { Check } from "../step.js";
import { controlWords, queueWords, slotCount, slotHeader, slotWords, stepKinds } from "./queue-words.js";

const { PUBLISHED, COMPLETED, BUSY, WAKE, REMAINING, PENDING, WRONG, REPORTED, REPORT, AWAKE } = queueWords;
const none = 0x7fff_ffff;

/** A step of the queue: a kernel, or one of `stepKinds` with its arguments. */
export interface QueuedStep {
  readonly kernel: number | (typeof stepKinds)[keyof typeof stepKinds];
  readonly tasks: number;
  readonly args: KernelArguments;
  /** About what a task takes. */
  readonly taskMicroseconds: number;
  readonly check?: Check | undefined;
}

/** What the calling thread needs to take tasks too. */
export interface Hands {
  /** Runs one task of a kernel; returns the place of a value that is not as it must be, if there is one. */
  run(kernel: number, args: KernelArguments, task: number, thread: number): number | undefined;
  /** Does a `read`, and returns what hands its result over. */
  read(id: number, address: number, bytes: number): () => void;
  /** Does what the answer to a step is for. */
  answer(id: number): void;
  valueAt(address: number): number;
  /** The last argument of a kernel: whose scratch it takes. */
  readonly thread: number;
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

  /** Whether a worker would take a task at once. */
  get awake(): boolean {
    return Atomics.load(this.control, AWAKE) > 0;
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
    if (Atomics.sub(this.control, PENDING, 1) === 1) this.#goOn(Atomics.load(this.control, COMPLETED));
  }

  /**
   * Takes tasks of the current step, and of those after it, as a worker does, while `goesOn`; returns whether there were
   * any. Leaves tasks that take longer than `longest` microseconds to the workers.
   */
  help(hands: Hands, longest: number, goesOn: () => boolean): boolean {
    let helped = false;
    while (goesOn() && this.#takeTasks(hands, longest, goesOn)) helped = true;
    return helped;
  }

  /** As takeTasks in worker/worker.js. */
  #takeTasks(hands: Hands, longest: number, goesOn: () => boolean): boolean {
    const { control, slots } = this;
    let done = 0;
    let step = 0;
    let answer: (() => void) | undefined;
    let args: number[] = [];
    while (done === 0 || goesOn()) {
      if (slots[slotOf(Atomics.load(control, COMPLETED)) + 4] > longest) break;
      const left = Atomics.load(control, REMAINING) > 0 ? Atomics.sub(control, REMAINING, 1) : 0;
      if (left <= 0) break;
      step = Atomics.load(control, COMPLETED);
      const slot = slotOf(step);
      const [kind, tasks, , count] = slots.subarray(slot, slot + slotHeader);
      if (done === 0) args = Array.from(slots.subarray(slot + slotHeader, slot + slotHeader + count));
      if (kind === stepKinds.host) {
        hands.answer(args[0]);
        return true;
      }
      if (kind === stepKinds.signal) answer = () => hands.answer(args[0]);
      else if (kind === stepKinds.read) answer = hands.read(args[0], args[1], args[2]);
      else this.#noteWrong(hands.run(kind, args, tasks - left, hands.thread) ?? -1);
      done++;
    }
    if (done > 0 && Atomics.sub(control, PENDING, done) === done) this.#finish(step, hands, answer);
    return done > 0;
  }

  #noteWrong(wrong: number): void {
    if (wrong < 0) return;
    for (let seen = Atomics.load(this.control, WRONG); wrong < seen; ) {
      const found = Atomics.compareExchange(this.control, WRONG, seen, wrong);
      if (found === seen) return;
      seen = found;
    }
  }

  /** Only this thread publishes, so nothing can be added in between. */
  #finish(step: number, hands: Hands, answer: (() => void) | undefined): void {
    const { control } = this;
    const wrong = Atomics.load(control, WRONG);
    if (wrong !== none && Atomics.load(control, REPORTED) === 0) {
      control[REPORT] = step;
      control[REPORT + 1] = wrong;
      control[REPORT + 2] = hands.valueAt(this.slots[slotOf(step) + 2] + wrong * 4);
      Atomics.store(control, REPORTED, 1);
    }
    this.#goOn(step);
    answer?.();
  }

  /** Begins the step after `step`, which is done, if there is one. */
  #goOn(step: number): void {
    const next = (step + 1) | 0;
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

  #write({ kernel, tasks, args, taskMicroseconds, check }: QueuedStep): void {
    const at = slotOf(this.#written);
    this.slots[at] = kernel;
    this.slots[at + 1] = tasks;
    this.slots[at + 2] = check?.values ?? 0;
    this.slots[at + 3] = args.length;
    this.slots[at + 4] = taskMicroseconds;
    // It makes 1 of true and 0 of false.
    this.slots.set(args as ArrayLike<number>, at + slotHeader);
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
    const tasks = this.slots[slotOf(step) + 1];
    Atomics.store(this.control, WRONG, none);
    Atomics.store(this.control, PENDING, tasks);
    Atomics.store(this.control, REMAINING, tasks);
    Atomics.add(this.control, WAKE, 1);
    Atomics.notify(this.control, WAKE, tasks);
  }
}

function slotOf(step: number): number {
  return (step & (slotCount - 1)) * slotWords;
}
