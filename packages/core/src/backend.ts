// For `Disposable` in the declarations: whoever compiles against them need not ask for it.
/// <reference lib="esnext.disposable" preserve="true" />
import type { DType, FloatDType, TypedArray } from "./dtype.js";
import type { OpCalls, OpName, Ops } from "./ops.js";
import type { Tensor } from "./tensor.js";

/** What a device can do with a dtype: hold it, compute in it, compute in it on special units. */
export type DTypeUse = "storage" | "arithmetic" | "accelerated";

/** What a backend can do, as data. The conformance suite skips by this and by nothing else. */
export interface Capabilities {
  readonly dtypes: Readonly<Record<FloatDType, ReadonlySet<DTypeUse>>>;
  /** Ops that are present; calling another is UNSUPPORTED. */
  readonly ops: ReadonlySet<OpName>;
  /** Same inputs, same bits, on every run. */
  readonly deterministic: boolean;
  /** Largest buffer in bytes. */
  readonly maxBufferBytes: number;
  /**
   * Largest buffer in bytes that an op takes where it is no expert table, nor gradient, moment or master of a parameter:
   * a device that binds less than it stores splits those alone. A larger one is UNSUPPORTED. Default `maxBufferBytes`.
   */
  readonly maxOperandBytes?: number;
  /** Largest X and Y of a router; at least 4,096. */
  readonly maxKeysPerAxis: number;
  /** Whether the device can time its own work: see `timeKernels`. */
  readonly timestamps: boolean;
  /** What the MLP keeps its intermediate in: f32, or the storage dtype (tensor cores). */
  readonly mlpIntermediate: "f32" | "storage";
  /** Whether `forceLoss` can make the device be lost, so that losing it can be tested. */
  readonly forcedLoss: boolean;
}

/** Bytes on the device. */
export interface MemoryReport {
  /** In buffers that are not disposed. */
  readonly liveBytes: number;
  /** Held for intermediates inside ops. */
  readonly scratchBytes: number;
  /** The most that live and scratch came to together. */
  readonly peakBytes: number;
  /** What live and scratch may come to together; null where the device does not tell. */
  readonly limitBytes: number | null;
}

/** What one piece of an op took on the device. */
export interface KernelTime {
  /** The op that it belongs to; "write" where the host's data needed one. */
  readonly op: OpName | "write";
  readonly kernel: string;
  readonly nanoseconds: number;
}

export interface DeviceLoss {
  readonly reason: "destroyed" | "unknown";
  readonly message: string;
}

/**
 * Memory of a device. Opaque: what shape it has is said in each call. Disposing twice is harmless; the
 * memory returns after the queued work that uses it.
 */
export interface DeviceBuffer extends Disposable {
  readonly backend: Backend;
  readonly dtype: DType;
  /** In elements. */
  readonly length: number;
  readonly byteLength: number;
  /** For messages; empty if none was given. */
  readonly label: string;
  readonly disposed: boolean;
  dispose(): void;
}

export interface AllocOptions {
  /** For messages. */
  readonly label?: string;
  /** False: the contents are unspecified until written. Default true. */
  readonly zeroed?: boolean;
}

/**
 * A device that runs the ops, validated: what a call may be wrong in was checked before the
 * implementation sees it. Made by `defineBackend`.
 *
 * Calls enqueue and return; they run in the order of submission. An error that a device reports late
 * (OUT_OF_MEMORY, an expert id out of range, a failed kernel) rejects the next `read`, `sync`,
 * `prepare` or `dispose`. After `dispose` everything throws DISPOSED, after a loss DEVICE_LOST.
 */
export interface Backend extends AsyncDisposable {
  /** Version of this contract. */
  readonly specVersion: 1;
  /** "webgpu", for instance. */
  readonly name: string;
  /** The device, for people: "NVIDIA H200". */
  readonly device: string;
  readonly capabilities: Capabilities;
  /** Settles once, when the device is lost; never rejects. */
  readonly lost: Promise<DeviceLoss>;
  readonly disposed: boolean;
  /** Each enqueues its work and returns. An absent one throws UNSUPPORTED. */
  readonly ops: Ops;
  /**
   * A buffer of `length` elements, zeros unless `zeroed` is false. OUT_OF_MEMORY with the bytes asked
   * for and the bytes left; INVALID_ARGUMENT for a length that is no integer from 0 on or comes to more
   * than `maxBufferBytes`; UNSUPPORTED for a dtype that cannot be stored.
   */
  alloc(dtype: DType, length: number, options?: AllocOptions): DeviceBuffer;
  /** Copies host data (raw bits for f16 and bf16) into `target` from element `offset` on. `data` is free afterwards. */
  write(target: DeviceBuffer, data: TypedArray, offset?: number): void;
  /** A copy of `length` elements from `offset` on, as they are when all earlier calls have run. */
  read(source: DeviceBuffer, offset?: number, length?: number): Promise<TypedArray>;
  /** Copies all of `source` over `target`: same dtype, same length, not the same buffer. */
  copy(source: DeviceBuffer, target: DeviceBuffer): void;
  /**
   * A new tensor with `values`, rounded to `dtype` (nearest, ties to even). By default f32, i32 for an
   * Int32Array; a Uint16Array needs `dtype` f16 or bf16 and is taken as raw bits.
   */
  upload(values: Int32Array, shape: readonly number[], dtype?: "i32", label?: string): Tensor<"i32">;
  upload<Type extends DType = "f32">(
    values: ArrayLike<number>,
    shape: readonly number[],
    dtype?: Type,
    label?: string,
  ): Tensor<Type>;
  /** A new tensor of zeros. */
  zeros<Type extends DType = "f32">(shape: readonly number[], dtype?: Type, label?: string): Tensor<Type>;
  /** Makes ready (compiles) what a call needs, without running it. */
  prepare<Name extends OpName>(op: Name, call: OpCalls[Name]): Promise<void>;
  /** Waits until all that was submitted has run. */
  sync(): Promise<void>;
  memory(): MemoryReport;
  /** Waits for submitted work, frees everything. Harmless when repeated. */
  dispose(): Promise<void>;
}

/** What a provider can say without opening the device. */
export type ProbeResult =
  | {
      readonly available: true;
      /** The device, for people. */
      readonly device: string;
      /** A GPU interface that computes on the CPU: used only when asked for by name. */
      readonly software?: boolean;
    }
  | {
      readonly available: false;
      /** One sentence: why, and what would help. */
      readonly reason: string;
    };

/** What a backend package exports. Importing it has no side effect and registers nothing. */
export interface BackendProvider<Options extends object = object> {
  /** Short and lower case; `openBackend` finds it, and its options, by this. */
  readonly name: string;
  /** Opens nothing and never throws: what is wrong, with the options too, is a reason. */
  probe(options?: Options): Promise<ProbeResult>;
  /**
   * UNAVAILABLE, with the reason that `probe` gives; INVALID_ARGUMENT for an option that it does not know or
   * cannot take (see `checkOptions`).
   */
  open(options?: Options): Promise<Backend>;
}
