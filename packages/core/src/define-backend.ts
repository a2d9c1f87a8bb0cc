import type {
  AllocOptions,
  Backend,
  Capabilities,
  DeviceBuffer,
  DeviceLoss,
  KernelTime,
  MemoryReport,
} from "./backend.js";
import { describe } from "./describe.js";
import { type DType, encode, type TypedArray } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import type { BackendDescription, BackendImplementation, BackendRuntime } from "./implementation.js";
import { InFlight } from "./in-flight.js";
import type { LongJobOptions } from "./long-job.js";
import { isManagedBuffer, ManagedBuffer } from "./managed-buffer.js";
import { MemoryBudget } from "./memory-budget.js";
import { type OpCalls, type OpName, type Ops, opNames } from "./ops.js";
import { elementCount, Tensor } from "./tensor.js";
import { checkDescription, checkImplementation } from "./validate/description.js";
import { checkAllocation, checkHostArray, checkRange } from "./validate/host-data.js";
import { validateCall } from "./validate/validate-call.js";

/**
 * Turns a provider's raw ops into a `Backend`: arguments are validated, buffers owned and counted, late
 * errors delivered, loss and disposal enforced, here and nowhere else.
 */
export function defineBackend<H>(
  description: BackendDescription,
  createImplementation: (runtime: BackendRuntime) => BackendImplementation<H>,
): Backend {
  return new DefinedBackend(description, createImplementation);
}

/** What `together` keeps back until nothing of it can be refused any more. */
interface Held {
  /** For each op, in order. */
  readonly reservations: (() => void)[];
  readonly submissions: (() => void)[];
  readonly frees: (() => void)[];
}

/** Registered: a backend made by another copy of this package, of the same contract, will do. */
export const backendMarker: unique symbol = Symbol.for("flash-moe.backend.1");

export class DefinedBackend<H> implements Backend {
  readonly specVersion = 1;
  readonly name: string;
  readonly device: string;
  readonly capabilities: Capabilities;
  readonly lost: Promise<DeviceLoss>;
  readonly ops: Ops;
  readonly #budget: MemoryBudget;
  readonly #implementation: BackendImplementation<H>;
  readonly #inFlight = new InFlight();
  #resolveLost!: (loss: DeviceLoss) => void;
  #loss: DeviceLoss | undefined;
  #lateError: FlashMoeError | undefined;
  #disposal: Promise<void> | undefined;
  #freed = false;
  /** While `prepareWork` calls: what is being made ready, instead of run. */
  #preparing: { readonly op: OpName; readonly ready: Promise<void> }[] | undefined;
  /** While `together` calls. */
  #held: Held | undefined;

  constructor(
    description: BackendDescription,
    create: (runtime: BackendRuntime) => BackendImplementation<H>,
  ) {
    checkDescription(description);
    Object.defineProperty(this, backendMarker, { value: true });
    this.name = description.name;
    this.device = description.device;
    this.lost = new Promise((resolve) => {
      this.#resolveLost = resolve;
    });
    this.#budget = new MemoryBudget(description.memoryLimitBytes);
    this.#implementation = create({
      budget: this.#budget,
      fail: (error) => {
        this.#lateError ??= FlashMoeError.from(error, "BACKEND_FAILED", this.name);
      },
      lose: (loss) => this.#lose(loss),
    });
    checkImplementation(this.#implementation);
    const present = opNames.filter((name) => this.#implementation.ops[name] !== undefined);
    this.capabilities = Object.freeze({
      ...description.capabilities,
      ops: new Set(present),
      forcedLoss: this.#implementation.forceLoss !== undefined,
    });
    const ops: Partial<Record<OpName, (call: never) => void>> = {};
    for (const name of opNames) ops[name] = (call: OpCalls[OpName]) => this.#run(name, call);
    this.ops = Object.freeze(ops) as Ops;
  }

  get disposed(): boolean {
    return this.#disposal !== undefined;
  }

  alloc(dtype: DType, length: number, options: AllocOptions = {}): DeviceBuffer {
    this.#assertUsable();
    const label = options.label ?? "";
    const bytes = checkAllocation(this, dtype, length, label);
    const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
    this.#budget.reserve(bytes, what);
    let handle: H;
    try {
      handle = this.#guard(`allocating ${what}`, () =>
        this.#implementation.alloc(dtype, length, options.zeroed ?? true, label),
      );
      if (handle === undefined || handle instanceof Promise) {
        if (handle instanceof Promise) handle.catch(() => {});
        const returned = describe(handle);
        throw new FlashMoeError(
          "BACKEND_FAILED",
          `${this.name}: alloc of ${what} returned ${returned}; takes the handle, at once`,
        );
      }
    } catch (error) {
      this.#budget.release(bytes);
      throw error;
    }
    const free = (): void => {
      if (this.#held !== undefined) {
        this.#held.frees.push(free);
        return;
      }
      this.#budget.release(bytes);
      if (this.#disposal === undefined) this.#guard("free", () => this.#implementation.free(handle));
    };
    return new ManagedBuffer<H>(this, dtype, length, label, handle, free);
  }

  write(target: DeviceBuffer, data: TypedArray, offset = 0): void {
    this.#assertUsable();
    const handle = this.handleOf("target", target);
    checkHostArray(data, target.dtype);
    checkRange("write", target, offset, data.length);
    if (data.length === 0) return;
    // What waits must not change meanwhile; and memory that is shared is more than some devices take.
    const isOwn = data.buffer instanceof ArrayBuffer;
    const values = this.#held === undefined && isOwn ? data : data.slice();
    this.#submit("write", () => this.#implementation.write(handle, values, offset));
  }

  async read(source: DeviceBuffer, offset = 0, length?: number): Promise<TypedArray> {
    this.#assertUsable();
    const handle = this.handleOf("source", source);
    const count = length ?? source.length - offset;
    checkRange("read", source, offset, count);
    return this.#settle("read", () => this.#implementation.read(handle, offset, count));
  }

  copy(source: DeviceBuffer, target: DeviceBuffer): void {
    this.#assertUsable();
    const from = this.handleOf("source", source);
    const to = this.handleOf("target", target);
    const same = source === target || (from === to && source.length > 0);
    if (source.dtype !== target.dtype || source.length !== target.length || same) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `copy from ${source.length} ${source.dtype} to ${target.length} ${target.dtype}` +
          `${same ? " of the same buffer" : ""}; takes two buffers of one dtype and length`,
      );
    }
    if (source.length === 0) return;
    this.#submit("copy", () => this.#implementation.copy(from, to));
  }

  upload<Type extends DType>(
    values: ArrayLike<number>,
    shape: readonly number[],
    dtype?: Type,
    label?: string,
  ): Tensor<Type> {
    this.#assertUsable();
    const count = elementCount(shape);
    if (typeof values !== "object" || values === null || isOfBigInts(values)) {
      throw new FlashMoeError("INVALID_ARGUMENT", `values is ${describe(values)}; takes an array of numbers`);
    }
    if (values.length !== count) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `values has ${values.length} elements; shape [${shape}] takes ${count}`,
      );
    }
    const isBits = values instanceof Uint16Array;
    const chosen = dtype ?? (values instanceof Int32Array ? "i32" : "f32");
    if (isBits && chosen !== "f16" && chosen !== "bf16") {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `values is a Uint16Array and dtype is ${dtype}; raw bits take dtype f16 or bf16`,
      );
    }
    checkAllocation(this, chosen, count, label ?? "");
    const data = isBits || isHostArray(values, chosen) ? (values as TypedArray) : encode(values, chosen);
    const buffer = this.alloc(chosen, count, { label, zeroed: false });
    try {
      this.write(buffer, data);
    } catch (error) {
      buffer.dispose();
      throw error;
    }
    return new Tensor(buffer, shape);
  }

  zeros<Type extends DType = "f32">(shape: readonly number[], dtype?: Type, label?: string): Tensor<Type> {
    return new Tensor(this.alloc(dtype ?? "f32", elementCount(shape), { label }), shape);
  }

  async prepare<Name extends OpName>(op: Name, call: OpCalls[Name]): Promise<void> {
    this.#assertUsable();
    this.#assertPresent(op);
    const legal = validateCall(op, call, this);
    await this.#settle("prepare", () => this.#prepareRaw(op, legal));
  }

  async prepareWork(work: () => void, { signal, onProgress }: LongJobOptions): Promise<void> {
    this.#assertUsable();
    signal?.throwIfAborted();
    if (this.#implementation.prepare === undefined) return;
    const preparing: { readonly op: OpName; readonly ready: Promise<void> }[] = [];
    this.#preparing = preparing;
    try {
      work();
    } finally {
      this.#preparing = undefined;
    }
    for (const [done, { op, ready }] of preparing.entries()) {
      await this.#settle("prepare", () => ready);
      signal?.throwIfAborted();
      onProgress?.({ phase: "compile", name: op, loaded: done + 1, total: preparing.length });
    }
  }

  together<Result>(work: () => Result): Result {
    this.#assertUsable();
    if (this.#held !== undefined) return work();
    const held: Held = { reservations: [], submissions: [], frees: [] };
    try {
      let result: Result;
      this.#held = held;
      try {
        result = work();
      } finally {
        this.#held = undefined;
      }
      for (const reserve of held.reservations) reserve();
      for (const submit of held.submissions) submit();
      return result;
    } finally {
      for (const free of held.frees) free();
    }
  }

  async sync(): Promise<void> {
    this.#assertUsable();
    await this.#settle("sync", () => this.#implementation.sync());
  }

  async timeKernels(work: () => void): Promise<KernelTime[]> {
    this.#assertUsable();
    const { timeKernels } = this.#implementation;
    if (!this.capabilities.timestamps || timeKernels === undefined) {
      throw new FlashMoeError("UNSUPPORTED", `${this.name} on ${this.device} cannot time its own work`);
    }
    let thrown: { readonly error: unknown } | undefined;
    const guarded = (): void => {
      try {
        work();
      } catch (error) {
        thrown = { error };
      }
    };
    const times = await this.#settle("timeKernels", () => timeKernels.call(this.#implementation, guarded));
    if (thrown !== undefined) throw thrown.error;
    return times;
  }

  memory(): MemoryReport {
    const report = this.#budget.report();
    return this.#freed ? { ...report, liveBytes: 0, scratchBytes: 0 } : report;
  }

  dispose(): Promise<void> {
    // What failed is told once, to the first caller.
    if (this.#disposal !== undefined) return this.#disposal.catch(() => {});
    this.#disposal = this.#dispose();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  forceLoss(): void {
    this.#assertUsable();
    if (this.#implementation.forceLoss === undefined) {
      throw new FlashMoeError("UNSUPPORTED", `${this.name} cannot lose its device on request`);
    }
    this.#guard("forceLoss", () => this.#implementation.forceLoss?.());
  }

  adopt(
    handle: H,
    dtype: DType,
    length: number,
    options: { label?: string; release?: () => void },
  ): DeviceBuffer {
    this.#assertUsable();
    checkAllocation(this, dtype, length, options.label ?? "");
    return new ManagedBuffer<H>(
      this,
      dtype,
      length,
      options.label ?? "",
      handle,
      options.release ?? (() => {}),
    );
  }

  handleForProvider(buffer: DeviceBuffer): H {
    this.#assertUsable();
    return this.handleOf("buffer", buffer);
  }

  /** The handle of a living buffer of this backend; FOREIGN_BUFFER, DISPOSED or INVALID_ARGUMENT else. */
  handleOf(name: string, buffer: DeviceBuffer, op?: OpName): H {
    if (!isManagedBuffer(buffer) || buffer.backend !== this || buffer.disposed) {
      throw this.#wrongBuffer(op === undefined ? name : `${op}: ${name}`, buffer);
    }
    return buffer.handle as H;
  }

  #wrongBuffer(name: string, buffer: DeviceBuffer): FlashMoeError {
    if (!isManagedBuffer(buffer)) {
      const message = `${name} is ${describe(buffer)}; takes a buffer of ${this.name}`;
      return new FlashMoeError("INVALID_ARGUMENT", message);
    }
    if (buffer.backend !== this) {
      const message = `${name} belongs to another backend (${buffer.backend.name}); takes a buffer of this one (${this.name})`;
      return new FlashMoeError("FOREIGN_BUFFER", message);
    }
    const label = buffer.label === "" ? "" : ` (${buffer.label})`;
    return new FlashMoeError("DISPOSED", `${name}${label} has been disposed`);
  }

  #run(op: OpName, call: OpCalls[OpName]): void {
    this.#assertUsable();
    this.#assertPresent(op);
    const legal = validateCall(op, call, this);
    if (this.#preparing !== undefined) {
      const ready = this.#prepareRaw(op, legal);
      // Judged when its turn comes.
      ready.catch(() => {});
      this.#preparing.push({ op, ready });
      return;
    }
    const { ops } = this.#implementation;
    this.#held?.reservations.push(() =>
      this.#call(`reserve of ${op}`, () => this.#implementation.reserve?.(op, legal as never)),
    );
    this.#submit(op, () => ops[op]?.(legal as never));
  }

  /** Hands a call over, at once or when `together` does. */
  #submit(what: string, call: () => unknown): void {
    if (this.#held === undefined) {
      this.#call(what, call);
      return;
    }
    this.#held.submissions.push(() => {
      this.#assertUsable();
      this.#call(what, call);
    });
  }

  /** An async function passes as one that returns nothing, and its work would escape the order of calls. */
  #call(what: string, call: () => unknown): void {
    const answer = this.#guard(what, call);
    if (!(answer instanceof Promise)) return;
    answer.catch(() => {});
    throw new FlashMoeError(
      "BACKEND_FAILED",
      `${this.name}: ${what} returned a promise; it enqueues its work and returns nothing`,
    );
  }

  async #prepareRaw(op: OpName, call: OpCalls<H>[OpName]): Promise<void> {
    await this.#implementation.prepare?.(op, call);
  }

  #assertPresent(op: OpName): void {
    if (!this.capabilities.ops.has(op))
      throw new FlashMoeError("UNSUPPORTED", `${this.name} has no op ${op}`);
  }

  /** Runs a piece of the implementation; what it throws becomes BACKEND_FAILED, unless it has a code. */
  #guard<Result>(what: string, work: () => Result): Result {
    try {
      return work();
    } catch (error) {
      throw FlashMoeError.from(error, "BACKEND_FAILED", `${this.name}: ${what}`);
    }
  }

  /** Awaits the device; a late error or a loss that shows meanwhile wins over the result. */
  async #settle<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
    let result: Result;
    try {
      result = await this.#inFlight.run(work);
    } catch (error) {
      if (this.#loss !== undefined) throw this.#lossError(this.#loss);
      this.#throwLateError();
      throw FlashMoeError.from(error, "BACKEND_FAILED", `${this.name}: ${what}`);
    }
    if (this.#loss !== undefined) throw this.#lossError(this.#loss);
    this.#throwLateError();
    return result;
  }

  #throwLateError(): void {
    const error = this.#lateError;
    this.#lateError = undefined;
    if (error !== undefined) throw error;
  }

  async #dispose(): Promise<void> {
    let failure: unknown;
    await this.#inFlight.settled();
    if (this.#loss === undefined) {
      try {
        await this.#settle("dispose", () => this.#implementation.sync());
      } catch (error) {
        if (this.#loss === undefined) failure = error;
      }
    }
    this.#freed = true;
    try {
      await this.#implementation.dispose();
    } catch (error) {
      failure ??= FlashMoeError.from(error, "BACKEND_FAILED", `${this.name}: dispose`);
    }
    if (failure !== undefined) throw failure;
  }

  #lose(loss: DeviceLoss): void {
    // A device that is destroyed because the backend was disposed is not lost.
    if (this.#loss !== undefined || this.#freed) return;
    this.#loss = loss;
    this.#resolveLost(loss);
    this.#inFlight.rejectAll(this.#lossError(loss));
  }

  #lossError(loss: DeviceLoss): FlashMoeError {
    return new FlashMoeError(
      "DEVICE_LOST",
      `${this.name} has lost its device (${loss.reason}): ${loss.message}`,
    );
  }

  #assertUsable(): void {
    if (this.#disposal !== undefined)
      throw new FlashMoeError("DISPOSED", `backend ${this.name} has been disposed`);
    if (this.#loss !== undefined) throw this.#lossError(this.#loss);
  }
}

/** Ids of 64 bits, say: they are no numbers. */
function isOfBigInts(values: object): boolean {
  return values instanceof BigInt64Array || values instanceof BigUint64Array;
}

function isHostArray(values: ArrayLike<number>, dtype: DType): boolean {
  return dtype === "f32" ? values instanceof Float32Array : dtype === "i32" && values instanceof Int32Array;
}
