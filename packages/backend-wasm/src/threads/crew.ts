import { type BackendRuntime, FlashMoeError, immediateTurn } from "@flash-moe/core";
import { type Kernels, taskKernels } from "../kernels.js";
import { byteTime } from "../partition.js";
import type { Step } from "../step.js";
import type { WebAssemblyMemory } from "../web-assembly.js";
import type { ThreadPlan } from "./plan-threads.js";
import { queueWords, slotHeader, slotWords, stepKinds } from "./queue-words.js";
import { spawnWorker, type ThreadEngine, type WorkerThread } from "./spawn.js";
import { type Hands, type QueuedStep, StepQueue } from "./step-queue.js";

/** How long a worker may take to come up. */
const startMilliseconds = 20_000;

/** How long the calling thread helps between two turns of the event loop, and the longest task that it takes. */
const helpMilliseconds = 3;
const longestTask = 4000;

/** After so long without a task the calling thread looks again only every millisecond: a step has shorter ones. */
const idleMilliseconds = 2;

/** What a worker says. */
interface WorkerMessage {
  readonly ready?: true;
  /** What could not be gone on with. */
  readonly failed?: string;
  readonly id?: number;
  readonly copy?: ArrayBuffer;
  readonly refused?: string;
}

const refillId = 0;

/**
 * The threads of a backend and what is asked of them: workers, which run what is submitted in its order, and, where a
 * turn of the event loop costs next to nothing, the calling thread, which helps while somebody waits for an answer. It
 * never sleeps.
 */
export class Crew {
  readonly threads: number;
  readonly #memory: WebAssemblyMemory;
  readonly #queue = new StepQueue(signal(refillId));
  readonly #answers = new Map<number, (message: WorkerMessage) => void>();
  #workers: WorkerThread[] = [];
  #runtime: BackendRuntime | undefined;
  /** Of the calling thread, where it helps. */
  #hands: Hands | undefined;
  #helping = false;
  /** The last signal that was asked for and has not come. */
  #signal: number | undefined;
  #lastId = refillId;
  #holds = false;
  /** Why a worker has ended, once one has. */
  #end: string | undefined;
  #closed = false;

  private constructor(threads: number, memory: WebAssemblyMemory) {
    this.threads = threads;
    this.#memory = memory;
  }

  /** Resolves when all workers run. Rejects, and leaves nothing behind, if one does not. */
  static async start(
    engine: ThreadEngine,
    { threads, workers }: ThreadPlan,
    memory: WebAssemblyMemory,
    module: Uint8Array,
  ): Promise<Crew> {
    const crew = new Crew(threads, memory);
    try {
      const starts = Array.from({ length: workers }, (_, thread) =>
        crew.#startWorker(engine, thread, module),
      );
      await withTimeout(Promise.all(starts), startMilliseconds);
      if (crew.#end !== undefined) throw new Error(crew.#end);
    } catch (error) {
      await crew.close();
      throw error;
    }
    for (const worker of crew.#workers) worker.holdProcess(false);
    return crew;
  }

  /** Who is told of failures and of the loss; what the calling thread helps with. */
  attach(runtime: BackendRuntime, kernels: Kernels): void {
    this.#runtime = runtime;
    if (this.#workers.length < this.threads) this.#hands = this.#handsWith(kernels);
    if (this.#end !== undefined) this.#lose(this.#end);
  }

  /** Whether everything that was submitted is done. */
  get idle(): boolean {
    return this.#queue.idle;
  }

  /** Whether somebody takes what is submitted without having to be woken. */
  get awake(): boolean {
    return this.#queue.awake;
  }

  submit(steps: readonly Step[]): void {
    this.#queue.add(steps);
    this.#updateHold();
  }

  /** Resolves when everything that was submitted before is done. */
  async finish(): Promise<void> {
    await this.#ask((id) => {
      this.#signal = id;
      return signal(id);
    });
  }

  /** A copy of memory, as it is when everything that was submitted before is done. */
  async read(address: number, bytes: number): Promise<ArrayBuffer> {
    const { copy, refused } = await this.#ask((id) => ({
      kernel: stepKinds.read,
      tasks: 1,
      args: [id, address, bytes],
      taskMicroseconds: bytes * byteTime,
    }));
    if (copy !== undefined) return copy;
    throw new FlashMoeError(
      "OUT_OF_MEMORY",
      `the copy that read returns needs ${bytes} bytes, which the JavaScript engine does not give (${refused})`,
    );
  }

  /** Has `work` done on the calling thread, between what was submitted before and what comes after. */
  doInTurn(work: () => void): void {
    void this.#ask(
      (id) => ({ kernel: stepKinds.host, tasks: 1, args: [id], taskMicroseconds: 0 }),
      () => {
        work();
        this.#queue.finishHostStep();
      },
    );
  }

  /** Hands on what checks have found. */
  deliverReport(): void {
    const error = this.#queue.takeReport();
    if (error !== undefined) this.#runtime?.fail(error);
  }

  /** Ends the workers, whatever they do. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#answers.clear();
    const workers = this.#workers;
    this.#workers = [];
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  #ask(stepFor: (id: number) => QueuedStep, first: () => void = () => {}): Promise<WorkerMessage> {
    this.#lastId++;
    const id = this.#lastId;
    return new Promise((resolve) => {
      this.#answers.set(id, (message) => {
        first();
        resolve(message);
      });
      this.#queue.add([stepFor(id)]);
      this.#updateHold();
      void this.#help();
    });
  }

  /** Takes tasks on the calling thread as long as somebody waits, a turn of the event loop after every few. */
  async #help(): Promise<void> {
    const hands = this.#hands;
    if (this.#helping || hands === undefined) return;
    this.#helping = true;
    // What the caller does first may be to ask for more.
    await undefined;
    for (let helped = Date.now(); this.#answers.size > 0 && !this.#closed; ) {
      const until = Date.now() + helpMilliseconds;
      try {
        if (this.#queue.help(hands, longestTask, () => Date.now() < until)) helped = Date.now();
        // Sooner than the message that says so.
        if (this.#signal !== undefined && this.#queue.idle) this.#receive({ id: this.#signal });
      } catch (error) {
        this.#endedBy(String(error));
      }
      await (Date.now() - helped > idleMilliseconds ? millisecond() : immediateTurn());
    }
    this.#helping = false;
  }

  #handsWith(kernels: Kernels): Hands {
    const memory = this.#memory;
    return {
      run: (kernel, args, task, thread) => kernels[taskKernels[kernel]](...args, task, thread),
      read: (id, address, bytes) => {
        const result = copyOf(memory, address, bytes);
        return () => this.#receive({ id, ...result });
      },
      answer: (id) => this.#receive({ id }),
      valueAt: (address) => new Int32Array(memory.buffer, address, 1)[0],
      thread: this.threads - 1,
    };
  }

  #startWorker(engine: ThreadEngine, thread: number, module: Uint8Array): Promise<void> {
    const { control, slots } = this.#queue;
    const setup = {
      ...{ memory: this.#memory, module, kernels: taskKernels, kinds: stepKinds },
      ...{ control, words: queueWords, slots, slotWords, slotHeader, thread },
    };
    return new Promise((resolve, reject) => {
      const onEnd = (why: string): void => {
        reject(new Error(why));
        this.#endedBy(why);
      };
      const worker = spawnWorker(engine, setup, {
        onMessage: (data) => {
          const message = data as WorkerMessage;
          if (message.ready) resolve();
          else if (message.failed !== undefined) onEnd(message.failed);
          else this.#receive(message);
        },
        onEnd,
      });
      this.#workers.push(worker);
    });
  }

  #receive(message: WorkerMessage): void {
    if (this.#closed) return;
    this.deliverReport();
    if (message.id === this.#signal) this.#signal = undefined;
    if (message.id === refillId) this.#queue.refill();
    else {
      const answer = this.#answers.get(message.id!);
      this.#answers.delete(message.id!);
      answer?.(message);
    }
    this.#updateHold();
  }

  #endedBy(why: string): void {
    if (this.#closed || this.#end !== undefined) return;
    this.#end = why;
    if (this.#runtime !== undefined) this.#lose(why);
  }

  #lose(why: string): void {
    this.#runtime?.lose({ reason: "unknown", message: `a worker thread has ended: ${why}` });
    void this.close();
  }

  /** The process waits for the workers while somebody waits for an answer, and only then. */
  #updateHold(): void {
    const holds = this.#answers.size > 0 || this.#queue.overflowing;
    if (holds === this.#holds) return;
    this.#holds = holds;
    this.#workers[0]?.holdProcess(holds);
  }
}

function copyOf(memory: WebAssemblyMemory, address: number, bytes: number): Partial<WorkerMessage> {
  try {
    const copy = new ArrayBuffer(bytes);
    new Uint8Array(copy).set(new Uint8Array(memory.buffer, address, bytes));
    return { copy };
  } catch (error) {
    return { refused: String(error) };
  }
}

function millisecond(): Promise<void> {
  const { setTimeout } = globalThis as unknown as {
    setTimeout(callback: () => void, delay: number): unknown;
  };
  return new Promise((resolve) => setTimeout(resolve, 1));
}

function signal(id: number): QueuedStep {
  return { kernel: stepKinds.signal, tasks: 1, args: [id], taskMicroseconds: 0 };
}

async function withTimeout<Result>(promise: Promise<Result>, milliseconds: number): Promise<Result> {
  const { setTimeout, clearTimeout } = globalThis as unknown as {
    setTimeout(callback: () => void, milliseconds: number): unknown;
    clearTimeout(timer: unknown): void;
  };
  let timer: unknown;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not answer")), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
