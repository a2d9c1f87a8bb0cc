import type { KernelTime } from "@flash-moe/core";

/** What the addon of native/addon exports. */
export interface Addon {
  /** Of this interface, so that a binary of another version of the package is told instead of called. */
  readonly interfaceVersion: number;
  /** Whether this build computes on the CPU, for tests. */
  readonly shim: boolean;
  /** Names of ops in the order of their numbers. */
  readonly opNames: readonly string[];
  /** What the driver says. Never throws. */
  probe(): DriverReport;
  /** `device` counts from 0; a limit of -1 is what is free on it. */
  open(device: number, memoryLimitBytes: number, graphs: boolean): NativeDevice;
  /** The call in a block, read as `run` reads it, under dotted names: for the test of the block. */
  decodeCall(op: number, block: Float64Array): Record<string, unknown>;
}

export const interfaceVersion = 4;

interface DriverReport {
  /** Why nothing can be opened; empty if something can. */
  readonly refusal: string;
  /** The newest CUDA that the driver supports, 1000 * major + 10 * minor; 0 if there is no driver. */
  readonly driverCuda: number;
  readonly devices: readonly NativeDeviceInfo[];
}

export interface NativeDeviceInfo {
  readonly name: string;
  /** 10 * major + minor. */
  readonly computeCapability: number;
  readonly memoryBytes: number;
  /** Why it cannot be opened; empty if it can. */
  readonly refusal: string;
}

/**
 * A GPU with a stream of its own. What it throws and rejects with are errors whose `code` is one of FlashMoeError's.
 * Addresses are those of the device.
 */
export interface NativeDevice {
  /** Where a call is written before `run`. */
  readonly block: Float64Array;
  /** Bytes that are live, scratch, the peak of both, and their limit: as of the last call. */
  readonly memory: Float64Array;
  readonly multiprocessors: number;
  /** Of the L2 cache. */
  readonly cacheBytes: number;
  /** Enqueues the call in the block. */
  run(op: number): void;
  /** Takes the scratch that the call in the block will need, and gives it back. */
  reserve(op: number): void;
  alloc(bytes: number, zeroed: boolean, label: string): number;
  free(address: number, bytes: number): void;
  /** Takes a copy of the data. */
  write(address: number, data: ArrayBufferView): void;
  copy(source: number, target: number, bytes: number): void;
  /** Fills `target` when all earlier calls have run. */
  read(address: number, target: ArrayBufferView): Promise<Outcome>;
  sync(): Promise<Outcome>;
  /** Makes a mark in the order of the calls; returns its number. */
  mark(): number;
  /** The device's time from one mark to the other; then all marks are forgotten. */
  elapsed(from: number, to: number): Promise<Outcome & { readonly milliseconds: number }>;
  /** From now on every kernel is timed. */
  startTiming(): void;
  stopTiming(): Promise<Outcome & { readonly kernels: readonly KernelTime[] }>;
  /** What the model of costs expected of each way of the ops since `startTiming`. */
  expectations(): readonly ExpectedTime[];
  /** How ops go from now on: native/runtime/tuning.h. */
  tune(text: string): void;
  /** Gives up what is scratch between the calls: that of calls that repeat. */
  reclaim(): void;
  /** Makes the device be lost. */
  lose(reason: string): void;
  /** Waits for what is in flight, and frees everything that is on the device. */
  dispose(): void;
}

/** What the model that an op's way is chosen by expects of one of them; infinite where it is not possible. */
export interface ExpectedTime {
  readonly op: string;
  readonly way: string;
  readonly nanoseconds: number;
}

/** What became of the work that was enqueued before. */
export interface Outcome {
  /** How many ids out of range ops have met since the outcome before. */
  readonly idErrors: number;
}
