import type {
  AllocOptions,
  Backend,
  Capabilities,
  DeviceBuffer,
  DeviceLoss,
  MemoryReport,
} from "./backend.js";
import { bytesPerElement, type DType, dtypes, encode, matchesDType, type TypedArray } from "./dtype.js";
import { FlashMoeError } from "./errors.js";
import type { BackendDescription, BackendImplementation, BackendRuntime } from "./implementation.js";
import { MemoryBudget } from "./memory-budget.js";
import { type OpCalls, type OpName, type Ops, opNames } from "./ops.js";
import { elementCount, Tensor } from "./tensor.js";
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

/**
 * Makes the device be lost, as if it had been destroyed from outside, for tests of what comes after.
 * UNSUPPORTED where `capabilities.forcedLoss` is false.
 */
export function forceLoss(backend: Backend): void {
  asDefined(backend).forceLoss();
}

/** The provider's own handle of a buffer, for a provider's own functions. Same errors as using it in an op. */
export function bufferHandle<H>(backend: Backend, buffer: DeviceBuffer): H {
  return asDefined(backend).handleOf("buffer", buffer) as H;
}

/**
 * A buffer around memory that was not allocated here, for a provider's own functions. Its bytes are not
 * counted; disposing it calls `release`, if given, instead of freeing it.
 */
export function adoptHandle<H>(
  backend: Backend,
  handle: H,
  dtype: DType,
  length: number,
  options: { label?: string; release?: () => void } = {},
): DeviceBuffer {
  return asDefined(backend).adopt(handle, dtype, length, options);
}

function asDefined(backend: Backend): DefinedBackend<unknown> {
  if (backend instanceof DefinedBackend) return backend;
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    "backend was not made by defineBackend of this copy of @flash-moe/core",
  );
}

class ManagedBuffer<H> implements DeviceBuffer {
  readonly backend: DefinedBackend<H>;
  readonly dtype: DType;
  readonly length: number;
  readonly label: string;
  readonly handle: H;
  readonly #release: () => void;
  #disposed = false;

  constructor(
    backend: DefinedBackend<H>,
    dtype: DType,
    length: number,
    label: string,
    handle: H,
    release: () => void,
  ) {
    this.backend = backend;
    this.dtype = dtype;
    this.length = length;
    this.label = label;
    this.handle = handle;
    this.#release = release;
  }

  get byteLength(): number {
    return this.length * bytesPerElement(this.dtype);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

class DefinedBackend<H> implements Backend {
  readonly specVersion = 1;
  readonly name: string;
  readonly device: string;
  readonly capabilities: Capabilities;
  readonly lost: Promise<DeviceLoss>;
  readonly ops: Ops;
  readonly #budget: MemoryBudget;
  readonly #implementation: BackendImplementation<H>;
  #resolveLost!: (loss: DeviceLoss) => void;
  #loss: DeviceLoss | undefined;
  #lateError: FlashMoeError | undefined;
  #disposal: Promise<void> | undefined;

  constructor(
    description: BackendDescription,
    create: (runtime: BackendRuntime) => BackendImplementation<H>,
  ) {
    this.name = description.name;
    this.device = description.device;
    this.lost = new Promise((resolve) => {
      this.#resolveLost = resolve;
    });
    this.#budget = new MemoryBudget(description.memoryLimitBytes);
    this.#implementation = create({
      budget: this.#budget,
      fail: (error) => {
        this.#lateError ??= error;
      },
      lose: (loss) => this.#lose(loss),
    });
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
    const bytes = this.#checkAllocation(dtype, length, label);
    const what = label === "" ? `a buffer of ${length} ${dtype}` : `${label} (${length} ${dtype})`;
    this.#budget.reserve(bytes, what);
    let handle: H;
    try {
      handle = this.#implementation.alloc(dtype, length, options.zeroed ?? true, label);
    } catch (error) {
      this.#budget.release(bytes);
      throw FlashMoeError.from(error, "BACKEND_FAILED", `${this.name}: allocating ${what}`);
    }
    return new ManagedBuffer<H>(this, dtype, length, label, handle, () => {
      this.#budget.release(bytes);
      if (this.#disposal === undefined) this.#implementation.free(handle);
    });
  }

  write(target: DeviceBuffer, data: TypedArray, offset = 0): void {
    this.#assertUsable();
    const handle = this.handleOf("target", target);
    if (!ArrayBuffer.isView(data) || !matchesDType(data, target.dtype)) {
      const accepted = { f32: "Float32Array", i32: "Int32Array", f16: "Uint16Array", bf16: "Uint16Array" };
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `data is ${describe(data)}; a ${target.dtype} buffer takes ${accepted[target.dtype]}`,
      );
    }
    checkRange("write", target, offset, data.length);
    if (data.length > 0) this.#implementation.write(handle, data, offset);
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
    if (source.dtype !== target.dtype || source.length !== target.length || from === to) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `copy from ${source.length} ${source.dtype} to ${target.length} ${target.dtype}` +
          `${from === to ? " of the same buffer" : ""}; takes two buffers of one dtype and length`,
      );
    }
    if (source.length > 0) this.#implementation.copy(from, to);
  }

  upload(values: ArrayLike<number>, shape: readonly number[], dtype?: DType, label?: string): Tensor {
    this.#assertUsable();
    const count = elementCount(shape);
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
    this.#checkAllocation(chosen, count, label ?? "");
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

  zeros(shape: readonly number[], dtype: DType = "f32", label?: string): Tensor {
    return new Tensor(this.alloc(dtype, elementCount(shape), { label }), shape);
  }

  async prepare<Name extends OpName>(op: Name, call: OpCalls[Name]): Promise<void> {
    this.#assertUsable();
    this.#assertPresent(op);
    validateCall(op, call, this);
    const raw = this.#withHandles(call) as OpCalls<H>[OpName];
    await this.#settle("prepare", async () => this.#implementation.prepare?.(op, raw));
  }

  async sync(): Promise<void> {
    this.#assertUsable();
    await this.#settle("sync", () => this.#implementation.sync());
  }

  memory(): MemoryReport {
    return this.#budget.report();
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#dispose();
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
    this.#implementation.forceLoss();
  }

  adopt(
    handle: H,
    dtype: DType,
    length: number,
    options: { label?: string; release?: () => void },
  ): DeviceBuffer {
    this.#assertUsable();
    this.#checkAllocation(dtype, length, options.label ?? "");
    return new ManagedBuffer<H>(
      this,
      dtype,
      length,
      options.label ?? "",
      handle,
      options.release ?? (() => {}),
    );
  }

  /** The handle of a living buffer of this backend; FOREIGN_BUFFER, DISPOSED or INVALID_ARGUMENT else. */
  handleOf(name: string, buffer: DeviceBuffer): H {
    if (!(buffer instanceof ManagedBuffer)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${name} is ${describe(buffer)}; takes a buffer of ${this.name}`,
      );
    }
    if (buffer.backend !== (this as unknown)) {
      throw new FlashMoeError(
        "FOREIGN_BUFFER",
        `${name} belongs to another backend (${buffer.backend.name}); takes a buffer of this one (${this.name})`,
      );
    }
    if (buffer.disposed) {
      throw new FlashMoeError(
        "DISPOSED",
        `${name}${buffer.label === "" ? "" : ` (${buffer.label})`} has been disposed`,
      );
    }
    return buffer.handle as H;
  }

  #run(op: OpName, call: OpCalls[OpName]): void {
    this.#assertUsable();
    const run = this.#assertPresent(op);
    validateCall(op, call, this);
    try {
      run(this.#withHandles(call) as never);
    } catch (error) {
      throw FlashMoeError.from(error, "BACKEND_FAILED", `${this.name}: ${op}`);
    }
  }

  #assertPresent(op: OpName): (call: never) => void {
    const run = this.#implementation.ops[op];
    if (run === undefined) throw new FlashMoeError("UNSUPPORTED", `${this.name} has no op ${op}`);
    return run as (call: never) => void;
  }

  /** The call with every buffer replaced by its handle; nested groups of buffers too. */
  #withHandles(value: object): object {
    const out: Record<string, unknown> = {};
    for (const [key, field] of Object.entries(value)) {
      if (field instanceof ManagedBuffer) out[key] = field.handle;
      else if (typeof field === "object" && field !== null && !Array.isArray(field))
        out[key] = this.#withHandles(field);
      else out[key] = field;
    }
    return out;
  }

  /** Awaits the device; a late error or a loss that shows meanwhile wins over the result. */
  async #settle<Result>(what: string, work: () => Promise<Result>): Promise<Result> {
    let result: Result;
    try {
      result = await Promise.race([
        work(),
        this.lost.then((loss) => {
          throw this.#lossError(loss);
        }),
      ]);
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
    if (this.#loss === undefined) {
      try {
        await this.#settle("dispose", () => this.#implementation.sync());
      } catch (error) {
        if (this.#loss === undefined) failure = error;
      }
    }
    await this.#implementation.dispose();
    if (failure !== undefined) throw failure;
  }

  #lose(loss: DeviceLoss): void {
    if (this.#loss !== undefined) return;
    this.#loss = loss;
    this.#resolveLost(loss);
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

  /** Bytes of a legal allocation. */
  #checkAllocation(dtype: DType, length: number, label: string): number {
    const name = label === "" ? "length" : `length of ${label}`;
    if (!dtypes.includes(dtype)) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `dtype is ${String(dtype)}; takes one of ${dtypes.join(", ")}`,
      );
    }
    if (dtype !== "i32" && !this.capabilities.dtypes[dtype].has("storage")) {
      throw new FlashMoeError("UNSUPPORTED", `${this.name} cannot store ${dtype}`);
    }
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${String(length)}; takes an integer from 0`);
    }
    const bytes = length * bytesPerElement(dtype);
    if (bytes > this.capabilities.maxBufferBytes) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `${name} is ${length} ${dtype} (${bytes} bytes); ${this.name} takes up to ${this.capabilities.maxBufferBytes} bytes in one buffer`,
      );
    }
    return bytes;
  }
}

function isHostArray(values: ArrayLike<number>, dtype: DType): boolean {
  return dtype === "f32" ? values instanceof Float32Array : dtype === "i32" && values instanceof Int32Array;
}

function checkRange(what: string, buffer: DeviceBuffer, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!valid || offset + length > buffer.length) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${what} of ${length} elements at offset ${offset}; the buffer has ${buffer.length}`,
    );
  }
}

function describe(value: unknown): string {
  if (value === null || typeof value !== "object") return String(value);
  return value.constructor?.name ?? "an object";
}
