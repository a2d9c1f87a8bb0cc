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
  open(options: NativeOptions): NativeDevice;
  /** The call in a block, read as `run` reads it, under dotted names: for the test of the block. */
  decodeCall(op: number, block: Float64Array): Record<string, unknown>;
}

export const interfaceVersion = 1;

export interface DriverReport {
  /** The newest CUDA that the driver supports, 1000 * major + 10 * minor; 0 if there is no driver. */
  readonly driverCuda: number;
  /** The oldest CUDA that a driver must support for this binary, likewise. */
  readonly requiredCuda: number;
  /** The oldest devices that the binary has code for, 10 * major + minor. */
  readonly minComputeCapability: number;
  /** Why there are no devices, in the words of CUDA; empty if there are. */
  readonly error: string;
  readonly devices: readonly NativeDeviceInfo[];
}

export interface NativeDeviceInfo {
  readonly name: string;
  /** 10 * major + minor. */
  readonly computeCapability: number;
  /** Whether the binary has code for it. */
  readonly supported: boolean;
}

export interface NativeOptions {
  readonly device: number;
  readonly graphs: boolean;
}

/**
 * A GPU with a stream of its own. What it throws and rejects with are errors whose `code` is one of FlashMoeError's.
 * Addresses are those of the device.
 */
export interface NativeDevice {
  /** Where a call is written before `run`. */
  readonly block: Float64Array;
  /** Of the GPU, when it was opened. */
  readonly freeBytes: number;
  readonly totalBytes: number;
  /** Enqueues the call in the block; returns the bytes of scratch that it took, of at most `scratchBytes`. */
  run(op: number, scratchBytes: number): number;
  alloc(bytes: number, zeroed: boolean): number;
  free(address: number): void;
  /** Takes a copy of the data. */
  write(address: number, data: ArrayBufferView): void;
  copy(source: number, target: number, bytes: number): void;
  /** Fills `target` when all earlier calls have run. */
  read(address: number, target: ArrayBufferView): Promise<IdErrorCounts>;
  sync(): Promise<IdErrorCounts>;
  /** Frees everything that is on the device, after the work that was submitted. */
  dispose(): Promise<void>;
  /** Makes the device be lost. */
  lose(): void;
}

/** Ids out of range that ops have met since the last await, by the op's number; undefined if there were none. */
export type IdErrorCounts = Float64Array | undefined;
