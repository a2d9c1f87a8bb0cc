import { nodeThreads, type ThreadEngine } from "./spawn.js";

/** As many as a call may ask for. */
export const maxThreads = 64;

/** As many as are taken unasked: what is bound by memory gains nothing from more. */
const defaultMaxThreads = 8;

/** What an engine tells of its threads. */
export interface ThreadEnvironment extends ThreadEngine {
  readonly SharedArrayBuffer?: unknown;
  readonly crossOriginIsolated?: boolean;
  readonly setImmediate?: unknown;
  readonly navigator?: { readonly hardwareConcurrency?: number };
}

/** With how many threads a backend runs; with one, everything is done on the calling thread. */
export interface ThreadPlan {
  readonly threads: number;
  /**
   * How many of them are workers. All but the calling thread where that can help while it waits, a turn of the event loop
   * costing next to nothing; all in pages, whose thread has a page to draw.
   */
  readonly workers: number;
  /** Why there is one, where more were wanted. */
  readonly reason?: string;
}

/** By default a thread a core, at most 8. */
export function planThreads(
  asked: number | undefined,
  environment: ThreadEnvironment = globalThis as ThreadEnvironment,
): ThreadPlan {
  const wanted = asked ?? Math.max(1, Math.min(cores(environment), defaultMaxThreads));
  if (wanted === 1) return { threads: 1, workers: 0 };
  const reason = whyNoThreads(environment);
  if (reason !== undefined) return { threads: 1, workers: 0, reason };
  return { threads: wanted, workers: environment.setImmediate === undefined ? wanted : wanted - 1 };
}

function cores(environment: ThreadEnvironment): number {
  try {
    const os = environment.process?.getBuiltinModule?.("node:os") as
      | { availableParallelism?(): number }
      | undefined;
    const cores = os?.availableParallelism?.() ?? environment.navigator?.hardwareConcurrency;
    return cores !== undefined && cores > 0 ? cores : 1;
  } catch {
    // Deno without the permission to ask.
    return environment.navigator?.hardwareConcurrency ?? 1;
  }
}

function whyNoThreads(environment: ThreadEnvironment): string | undefined {
  if (environment.crossOriginIsolated === false) return "the page is not cross-origin isolated";
  if (environment.SharedArrayBuffer === undefined) return "this runtime has no memory that threads share";
  if (nodeThreads(environment) !== undefined) return undefined;
  const { Worker, Blob, URL } = environment;
  return Worker && Blob && URL?.createObjectURL ? undefined : "this runtime has no workers";
}
