import type { FromWorker, JobName, Jobs, PlainError, ToWorker } from "./protocol.js";

/** An error that came out of the worker. */
export class RemoteError extends Error {
  readonly code: PlainError["code"];

  constructor({ code, message }: PlainError) {
    super(message);
    this.name = "RemoteError";
    this.code = code;
  }
}

export interface RunOptions<Name extends JobName> {
  readonly onProgress?: (progress: Jobs[Name]["progress"]) => void;
  /** Rejects with a RemoteError of code ABORTED once the worker has stopped. */
  readonly signal?: AbortSignal;
}

interface Waiting {
  resolve(output: unknown): void;
  reject(error: RemoteError): void;
  onProgress: ((progress: never) => void) | undefined;
}

/** The page's end of the worker: one promise a job. */
export class Client {
  /** Called when the device is lost. */
  onLost: (message: string) => void = () => {};
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;

  constructor() {
    this.#worker = new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => this.#receive(data));
    this.#worker.addEventListener("error", ({ message }) => {
      // The worker itself could not start or has an error outside of any job: nothing will be answered.
      const error = new RemoteError({ code: "UNKNOWN", message: message || "the worker did not start" });
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
  }

  run<Name extends JobName>(
    job: Name,
    input: Jobs[Name]["input"],
    { onProgress, signal }: RunOptions<Name> = {},
  ): Promise<Jobs[Name]["output"]> {
    const id = ++this.#lastId;
    const abort = (): void => this.#send({ id, abort: true });
    const answer = new Promise<Jobs[Name]["output"]>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject, onProgress });
      this.#send({ id, job, input } as ToWorker);
      signal?.addEventListener("abort", abort);
    });
    return answer.finally(() => signal?.removeEventListener("abort", abort));
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if ("event" in message) {
      this.onLost(message.message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (waiting === undefined) return;
    if ("progress" in message) {
      waiting.onProgress?.(message.progress as never);
      return;
    }
    this.#waiting.delete(message.id);
    if ("error" in message) waiting.reject(new RemoteError(message.error));
    else waiting.resolve(message.output);
  }
}
