import {
  type AbortSignalLike,
  type Backend,
  type BackendProvider,
  FlashMoeError,
  giveWay,
} from "@flash-moe/core";
import type { ConformanceCase } from "./case.js";
import { conformanceCases } from "./cases/index.js";
import { CaseContext, type WorstComparison } from "./context.js";
import { ConformanceFailure } from "./failure.js";
import { withTimeLimit } from "./time-limit.js";

export interface ConformanceResult {
  readonly id: string;
  readonly status: "passed" | "failed" | "skipped";
  /** Why it was skipped. */
  readonly reason?: string;
  /** Why it failed. */
  readonly error?: Error;
  /** The comparison that used most of its tolerance, where numbers were compared. */
  readonly worst?: WorstComparison;
  readonly milliseconds: number;
}

export interface ConformanceReport {
  /** Name of the backend; empty if a function was to open it and did not. */
  readonly backend: string;
  /** The device, for people; empty if there was none. */
  readonly device: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Nothing failed and something passed: an absent backend is never a pass. */
  readonly ok: boolean;
  readonly results: readonly ConformanceResult[];
}

/** A provider, or a function that opens a backend: a new one at every call. */
export type BackendOpener = BackendProvider | (() => Promise<Backend>);

export interface SessionOptions {
  /** An absent backend is a failure, not a skip. */
  readonly required?: boolean;
  /** Also the cases that need gigabytes. Default false. */
  readonly large?: boolean;
  /** Only cases whose id this accepts. */
  readonly filter?: (id: string) => boolean;
  /** After this long a case counts as hanging, and fails. Default 300,000. */
  readonly caseMilliseconds?: number;
}

export interface RunOptions extends SessionOptions {
  /** Called after each case. */
  readonly onResult?: (result: ConformanceResult) => void;
  /** Rejects with its reason, between cases. */
  readonly signal?: AbortSignalLike;
}

/**
 * Runs the suite on one backend, case after case.
 *
 * A backend that cannot be opened gives a report with one result, "open": skipped with the reason, or
 * failed if it is `required`.
 */
export async function runConformance(
  opener: BackendOpener,
  options: RunOptions = {},
): Promise<ConformanceReport> {
  const { onResult, signal } = options;
  signal?.throwIfAborted();
  const session = new ConformanceSession(opener, options);
  const results: ConformanceResult[] = [];
  try {
    const opened = await session.open();
    const report = (result: ConformanceResult): void => {
      results.push(result);
      onResult?.(result);
    };
    if (opened.status !== "passed") report(opened);
    for (const testCase of opened.status === "passed" ? session.cases : []) {
      signal?.throwIfAborted();
      report(await session.run(testCase));
      await giveWay();
    }
  } finally {
    await session.close();
  }
  const count = (status: ConformanceResult["status"]): number =>
    results.filter((result) => result.status === status).length;
  return {
    backend: session.name,
    device: session.device,
    passed: count("passed"),
    failed: count("failed"),
    skipped: count("skipped"),
    ok: count("failed") === 0 && count("passed") > 0,
    results,
  };
}

/**
 * One backend and the cases to run on it, for test frameworks, which call `run` once per test of theirs.
 *
 * The backend is reused from case to case. After an unexpected error or a loss it is discarded, and the
 * next case gets a new one; so a case never suffers from what an earlier one did.
 */
export class ConformanceSession {
  readonly cases: readonly ConformanceCase[];
  readonly #provider: BackendProvider | undefined;
  readonly #openBackend: () => Promise<Backend>;
  readonly #required: boolean;
  readonly #limit: number;
  #first: Backend | undefined;
  #second: Backend | undefined;
  #name = "";
  #device = "";

  constructor(opener: BackendOpener, options: SessionOptions = {}) {
    const { required = false, large = false, filter = () => true, caseMilliseconds = 300_000 } = options;
    this.#openBackend = typeof opener === "function" ? opener : () => opener.open();
    this.#provider = typeof opener === "function" ? undefined : opener;
    this.#name = this.#provider?.name ?? "";
    this.#required = required;
    this.#limit = caseMilliseconds;
    this.cases = conformanceCases.filter(
      ({ id, large: isLarge, ofProvider }) =>
        (large || !isLarge) && (this.#provider !== undefined || !ofProvider) && filter(id),
    );
  }

  /** Name of the backend; empty if a function opens it and has not yet. */
  get name(): string {
    return this.#name;
  }

  /** The device, for people; empty until it is opened. */
  get device(): string {
    return this.#device;
  }

  /** Opens the backend: passed, or skipped with the reason, or failed where it is required. */
  async open(): Promise<ConformanceResult> {
    const start = Date.now();
    const { absence } = await this.#open();
    return { id: "open", ...(absence ?? { status: "passed" }), milliseconds: Date.now() - start };
  }

  /** Runs one case; never throws. */
  async run(testCase: ConformanceCase): Promise<ConformanceResult> {
    const start = Date.now();
    const { id } = testCase;
    let context: CaseContext | undefined;
    const finish = (outcome: Outcome): ConformanceResult => ({
      id,
      ...outcome,
      ...(context?.worst === undefined ? {} : { worst: context.worst }),
      milliseconds: Date.now() - start,
    });
    const { backend, absence } = await this.#open();
    if (backend === undefined) return finish(absence);
    try {
      const answer = testCase.needs(backend);
      if (answer !== true) return finish({ status: "skipped", reason: answer });
      const running = new CaseContext(id, backend, {
        provider: this.#provider,
        second: () => this.#secondBackend(),
        fresh: () => this.#openBackend(),
      });
      context = running;
      await withTimeLimit(this.#limit, id, () => this.#runOn(testCase, running));
      return finish({ status: "passed" });
    } catch (error) {
      if (!(error instanceof ConformanceFailure)) await this.close();
      return finish({ status: "failed", error: asError(error) });
    }
  }

  /** Disposes of the backends. Harmless when repeated; the next `run` opens new ones. */
  async close(): Promise<void> {
    const open = [this.#first, this.#second];
    this.#first = undefined;
    this.#second = undefined;
    for (const backend of open) {
      // A backend that fails or hangs here was already reported by the case that broke it.
      await withTimeLimit(this.#limit, "dispose", async () => backend?.dispose()).catch(() => {});
    }
  }

  /** The backend, or why there is none. */
  async #open(): Promise<
    { backend: Backend; absence?: undefined } | { backend?: undefined; absence: Outcome }
  > {
    try {
      return { backend: await withTimeLimit(this.#limit, "opening the backend", () => this.#backend()) };
    } catch (error) {
      const absent = FlashMoeError.is(error) && error.code === "UNAVAILABLE";
      if (absent && !this.#required) return { absence: { status: "skipped", reason: error.message } };
      return { absence: { status: "failed", error: asError(error) } };
    }
  }

  async #runOn(testCase: ConformanceCase, context: CaseContext): Promise<void> {
    const { backend } = context;
    const before = backend.memory().liveBytes;
    try {
      await testCase.run(context);
    } catch (error) {
      await this.#cleanUp(context);
      throw error;
    }
    await context.close();
    await backend.sync();
    const after = backend.memory().liveBytes;
    if (after !== before) {
      throw new ConformanceFailure(`memory().liveBytes was ${before} before and is ${after} after`);
    }
  }

  /** After a failure, which is what is reported: if this fails too, the backend is not used again. */
  async #cleanUp(context: CaseContext): Promise<void> {
    try {
      await context.close();
      await context.backend.sync();
    } catch {
      await this.close();
    }
  }

  async #backend(): Promise<Backend> {
    this.#first ??= await this.#openBackend();
    this.#name = this.#first.name;
    this.#device = this.#first.device;
    return this.#first;
  }

  async #secondBackend(): Promise<Backend> {
    this.#second ??= await this.#openBackend();
    return this.#second;
  }
}

type Outcome = Pick<ConformanceResult, "status" | "reason" | "error">;

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error), { cause: error });
}
