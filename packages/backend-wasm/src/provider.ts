import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  checkOptions,
  defineBackend,
  FlashMoeError,
  type ProbeResult,
  takes,
} from "@flash-moe/core";
import { createImplementation } from "./implementation.js";
import { instantiate } from "./instance.js";
import { maxMemoryBytes } from "./linear-memory.js";
import { defaultMemoryLimitBytes } from "./memory-limit.js";
import { bestVariant, compileModule, isSupported, unsupportedReason, type Variant } from "./module.js";
import { maxThreads, planThreads, type ThreadPlan } from "./threads/plan-threads.js";

export interface WasmOptions {
  /**
   * Bytes that buffers and intermediates may take together. By default a share of the memory that is free when the
   * backend is opened, and never more than fits 4 GiB.
   */
  memoryLimitBytes?: number;
  /** Which build of the kernels; by default the best that the engine takes. */
  variant?: Variant;
  /**
   * How many threads do the work, from 1 to 64; by default one a core, at most 8. With one, ops run on the calling
   * thread; with more, worker threads do them, and the calling thread small ones and, in Node, Deno and Bun, its share
   * while it waits. Results are the same bits for any number. Where threads cannot be had (a page that is not cross-origin isolated or whose policy forbids workers)
   * there is one, and `device` says why.
   */
  threads?: number;
}

const name = "wasm";

const rules = {
  memoryLimitBytes: takes.wholeNumber(0, maxMemoryBytes),
  variant: takes.oneOf("simd", "relaxed-simd"),
  threads: takes.wholeNumber(1, maxThreads),
};

const capabilities: Omit<Capabilities, "ops" | "forcedLoss"> = {
  dtypes: {
    f32: new Set(["storage", "arithmetic"]),
    f16: new Set(["storage"]),
    bf16: new Set(["storage"]),
  },
  deterministic: true,
  // More than the memory limit ever lets through.
  maxBufferBytes: 2 ** 32,
  // Nothing else limits an axis: the logits of one token, one f32 per key of both axes, must fit a buffer.
  maxKeysPerAxis: maxMemoryBytes / 4 - 1,
  timestamps: false,
  mlpIntermediate: "f32",
};

/**
 * WebAssembly SIMD on the CPU, in any browser and runtime: the backend for machines without a GPU. Worker threads where
 * they can be had. f32 arithmetic; f16 and bf16 are decoded when they are read.
 */
export const wasm: BackendProvider<WasmOptions> = {
  name,

  async probe(options: WasmOptions = {}): Promise<ProbeResult> {
    try {
      checkOptions(name, options, rules);
      const variant = bestVariant();
      if (variant === undefined) return { available: false, reason: unsupportedReason() };
      await compileModule(variant);
      return { available: true, device: describeDevice(variant, planThreads(options.threads)) };
    } catch (error) {
      return { available: false, reason: (error as Error).message };
    }
  },

  /** INVALID_ARGUMENT for options that are not as described; UNAVAILABLE without the build that was asked for. */
  async open(options: WasmOptions = {}): Promise<Backend> {
    checkOptions(name, options, rules);
    const { memoryLimitBytes = defaultMemoryLimitBytes() } = options;
    const wanted = planThreads(options.threads);
    const variant = chooseVariant(options.variant);
    const { instance, plan } = await instantiate(variant, wanted);
    return defineBackend(
      { name, device: describeDevice(variant, plan), capabilities, memoryLimitBytes },
      (runtime) => {
        instance.crew?.attach(runtime, instance.kernels);
        return createImplementation(runtime, instance);
      },
    );
  },
};

function chooseVariant(asked: Variant | undefined): Variant {
  const best = bestVariant();
  if (best === undefined) throw new FlashMoeError("UNAVAILABLE", unsupportedReason());
  if (asked !== undefined && !isSupported(asked)) {
    throw new FlashMoeError("UNAVAILABLE", `this runtime has no WebAssembly with ${asked}; it has ${best}`);
  }
  return asked ?? best;
}

function describeDevice(variant: Variant, { threads, reason }: ThreadPlan): string {
  const simd = variant === "simd" ? "SIMD" : "relaxed SIMD";
  const count = threads === 1 ? "one thread" : `${threads} threads`;
  return `CPU, WebAssembly ${simd}, ${count}${reason === undefined ? "" : ` (${reason})`}`;
}
