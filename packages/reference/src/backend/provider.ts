import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  defineBackend,
  FlashMoeError,
  hostMemoryLimitBytes,
  type ProbeResult,
} from "@flash-moe/core";
import { createImplementation } from "./implementation.js";

export interface ReferenceOptions {
  /**
   * Bytes that buffers and intermediates may take together. By default a share of the memory that is free
   * when the backend is opened.
   */
  memoryLimitBytes?: number;
}

const name = "reference";
const device = "CPU, plain TypeScript (float64)";

/** One array of 4 GiB is what every current engine gives; most stop not far above. */
const maxBufferBytes = 2 ** 32;

const capabilities: Omit<Capabilities, "ops" | "forcedLoss"> = {
  dtypes: {
    f32: new Set(["storage", "arithmetic"]),
    f16: new Set(["storage"]),
    bf16: new Set(["storage"]),
  },
  deterministic: true,
  maxBufferBytes,
  // Nothing else limits an axis: the logits of one token, one f32 per key of both axes, must fit a buffer.
  maxKeysPerAxis: maxBufferBytes / 4 - 1,
  timestamps: false,
  mlpIntermediate: "f32",
};

/**
 * The oracle as a backend: plain TypeScript on one CPU core, in any engine. Every intermediate is in
 * float64, and outputs are rounded once.
 */
export const reference: BackendProvider<ReferenceOptions> = {
  name,
  async probe(): Promise<ProbeResult> {
    return { available: true, device };
  },
  /** INVALID_ARGUMENT for a `memoryLimitBytes` that is no whole number from 0 on. */
  async open(options: ReferenceOptions = {}): Promise<Backend> {
    const memoryLimitBytes = options.memoryLimitBytes ?? hostMemoryLimitBytes();
    if (!Number.isSafeInteger(memoryLimitBytes) || memoryLimitBytes < 0) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `memoryLimitBytes is ${String(options.memoryLimitBytes)}; takes a whole number of bytes from 0`,
      );
    }
    return defineBackend({ name, device, capabilities, memoryLimitBytes }, createImplementation);
  },
};
