import { workerSource } from "../modules.generated.js";

/** A worker thread, of Node's kind or of the web's. */
export interface WorkerThread {
  /** Whether the process waits for it; a page knows no such thing. */
  holdProcess(hold: boolean): void;
  terminate(): Promise<void>;
}

export interface WorkerEvents {
  onMessage(message: unknown): void;
  /** It has ended, and why as far as is known. May come more than once. */
  onEnd(why: string): void;
}

interface NodeWorker {
  on(event: string, listener: (value: unknown) => void): void;
  ref(): void;
  unref(): void;
  terminate(): Promise<unknown>;
}

interface WebWorker {
  onmessage: ((event: { data: unknown }) => void) | null;
  onerror: ((event: { message?: string; preventDefault(): void }) => void) | null;
  onmessageerror: (() => void) | null;
  postMessage(message: unknown): void;
  terminate(): void;
}

interface NodeThreads {
  Worker: new (source: string, options: object) => NodeWorker;
}

/** The part of an engine that makes threads. */
export interface ThreadEngine {
  readonly process?: { getBuiltinModule?: (name: string) => unknown };
  readonly Worker?: new (url: string, options?: object) => WebWorker;
  readonly Blob?: new (parts: string[], options: { type: string }) => object;
  readonly URL?: { createObjectURL(blob: object): string; revokeObjectURL(url: string): void };
}

const workerName = "flash-moe wasm";

/** Node's module of threads, where it is; Deno and Bun have it too. */
export function nodeThreads({ process }: ThreadEngine): NodeThreads | undefined {
  try {
    return process?.getBuiltinModule?.("node:worker_threads") as NodeThreads | undefined;
  } catch {
    return undefined;
  }
}

/** Starts the embedded worker. Throws, or reports its end, where the engine or a policy forbids it. */
export function spawnWorker(engine: ThreadEngine, setup: object, events: WorkerEvents): WorkerThread {
  const node = nodeThreads(engine);
  return node === undefined ? spawnWebWorker(engine, setup, events) : spawnNodeWorker(node, setup, events);
}

function spawnNodeWorker(node: NodeThreads, setup: object, events: WorkerEvents): WorkerThread {
  // No flags of the process: a loader that they name would be loaded for nothing.
  const worker = new node.Worker(workerSource, {
    eval: true,
    workerData: setup,
    execArgv: [],
    name: workerName,
  });
  worker.on("message", (message) => events.onMessage(message));
  worker.on("messageerror", () => events.onEnd("a message could not be read"));
  worker.on("error", (error) => events.onEnd(String(error)));
  worker.on("exit", (code) => events.onEnd(`it ended with exit code ${code}`));
  return {
    holdProcess: (hold) => (hold ? worker.ref() : worker.unref()),
    async terminate() {
      await worker.terminate();
    },
  };
}

function spawnWebWorker(engine: ThreadEngine, setup: object, events: WorkerEvents): WorkerThread {
  const { Worker, Blob, URL } = engine;
  const url = URL!.createObjectURL(new Blob!([workerSource], { type: "text/javascript" }));
  const release = (): void => URL!.revokeObjectURL(url);
  const worker = new Worker!(url, { name: workerName });
  worker.onmessage = ({ data }) => events.onMessage(data);
  worker.onmessageerror = () => events.onEnd("a message could not be read");
  worker.onerror = (event) => {
    event.preventDefault();
    release();
    events.onEnd(event.message || "this page does not let it start; its policy must allow worker-src blob:");
  };
  worker.postMessage(setup);
  return {
    holdProcess: () => {},
    async terminate() {
      release();
      worker.terminate();
    },
  };
}
