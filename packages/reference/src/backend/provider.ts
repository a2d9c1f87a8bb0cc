import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  checkOptions,
  defineBackend,
  hostMemoryLimitBytes,
  type ProbeResult,
  takes,
} from "@flash-moe/core";
import { createImplementation } from "./implementation.js";

export interface ReferenceOptions {
  /**
   * Bytes that buffers and intermediates may take together. By default a share of the memory that is free
   * when the backend is opened.
   */
  memoryLimitBytes?: number;
}

const rules = { memoryLimitBytes: takes.wholeNumber(0) };

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
  async probe(options: ReferenceOptions = {}): Promise<ProbeResult> {
    try {
      checkOptions(name, options, rules);
    } catch (error) {
      return { available: false, reason: (error as Error).message };
    }
    return { available: true, device };
  },
  /** INVALID_ARGUMENT for options that are not as described. */
  async open(options: ReferenceOptions = {}): Promise<Backend> {
    checkOptions(name, options, rules);
    const { memoryLimitBytes = hostMemoryLimitBytes() } = options;
    return defineBackend({ name, device, capabilities, memoryLimitBytes }, createImplementation);
  },
};
