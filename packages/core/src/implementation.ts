import type { Capabilities, DeviceLoss, KernelTime } from "./backend.js";
import type { DType, TypedArray } from "./dtype.js";
import type { FlashMoeError } from "./errors.js";
import type { MemoryBudget } from "./memory-budget.js";
import type { OpCalls, OpName, Ops } from "./ops.js";

/** What a backend says of itself to `defineBackend`. */
export interface BackendDescription {
  readonly name: string;
  readonly device: string;
  /** `ops` and `forcedLoss` are added from the implementation. */
  readonly capabilities: Omit<Capabilities, "ops" | "forcedLoss">;
  /** What buffers and scratch may come to together; null if the device does not tell. */
  readonly memoryLimitBytes: number | null;
}

/** What `defineBackend` lends to an implementation. */
export interface BackendRuntime {
  /** Buffers are counted already; count your scratch here. */
  readonly budget: MemoryBudget;
  /** Reports an error late: the next `read`, `sync`, `prepare` or `dispose` rejects with the first one. */
  fail(error: FlashMoeError): void;
  /** Reports that the device is lost. Only the first report counts. */
  lose(loss: DeviceLoss): void;
}

/**
 * What a provider writes: raw ops over handles `H` of its own. Every argument was validated: sizes
 * agree, dtypes are legal, buffers are alive, its own, and not aliased.
 */
export interface BackendImplementation<H> {
  /** The ops that are present. Each enqueues and returns; `call` holds handles where callers put buffers. */
  readonly ops: Partial<Ops<H>>;
  /** Memory for `length` elements (may be 0), zeroed if asked for. Throws OUT_OF_MEMORY. */
  alloc(dtype: DType, length: number, zeroed: boolean, label: string): H;
  /** Gives it back once the queued work that uses it is done. */
  free(handle: H): void;
  /** `data` may change after the call returns. */
  write(handle: H, data: TypedArray, offset: number): void;
  /** A copy, as of the calls made before this one. */
  read(handle: H, offset: number, length: number): Promise<TypedArray>;
  /** All of `source` over `target`; both have the same dtype and length. */
  copy(source: H, target: H): void;
  /**
   * Takes the scratch that a call will need and gives it back: OUT_OF_MEMORY where it cannot be had. It is asked for
   * each op of `together` before the first of them runs, with nothing allocated in between. Absent: an op that has no
   * room finds out when it runs.
   */
  reserve?<Name extends OpName>(op: Name, call: OpCalls<H>[Name]): void;
  /** Compiles ahead; absent where there is nothing to compile. */
  prepare?(op: OpName, call: OpCalls<H>[OpName]): Promise<void>;
  /** Resolves when all submitted work has run. */
  sync(): Promise<void>;
  /** Runs `work` at once, and tells what its kernels took, in order; there where `capabilities.timestamps` is true. */
  timeKernels?(work: () => void): Promise<KernelTime[]>;
  /** Frees the device and everything on it. */
  dispose(): Promise<void>;
  /** Makes the device be lost, as if destroyed from outside; absent where that cannot be done. */
  forceLoss?(): void;
}
