import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  defineBackend,
  FlashMoeError,
  type ProbeResult,
} from "@flash-moe/core";
import { createImplementation, type Instance } from "./implementation.js";
import type { Kernels } from "./kernels.js";
import { LinearMemory, maxMemoryBytes } from "./linear-memory.js";
import { defaultMemoryLimitBytes } from "./memory-limit.js";
import { bestVariant, compileModule, isSupported, unsupportedReason, type Variant } from "./module.js";
import { webAssembly } from "./web-assembly.js";

export interface WasmOptions {
  /**
   * Bytes that buffers and intermediates may take together. By default a share of the memory that is free when the
   * backend is opened, and never more than fits 4 GiB.
   */
  memoryLimitBytes?: number;
  /** Which build of the kernels; by default the best that the engine takes. */
  variant?: Variant;
}

const name = "wasm";

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
 * WebAssembly SIMD on one core of the CPU, in any browser and runtime: the backend for machines without a GPU. f32
 * arithmetic; f16 and bf16 are decoded when they are read.
 */
export const wasm: BackendProvider<WasmOptions> = {
  name,

  async probe(): Promise<ProbeResult> {
    const variant = bestVariant();
    if (variant === undefined) return { available: false, reason: unsupportedReason() };
    try {
      await compileModule(variant);
    } catch (error) {
      return { available: false, reason: (error as Error).message };
    }
    return { available: true, device: describeDevice(variant) };
  },

  /** INVALID_ARGUMENT for options that are not as described; UNAVAILABLE without the build that was asked for. */
  async open(options: WasmOptions = {}): Promise<Backend> {
    const memoryLimitBytes = options.memoryLimitBytes ?? defaultMemoryLimitBytes();
    if (
      !Number.isSafeInteger(memoryLimitBytes) ||
      memoryLimitBytes < 0 ||
      memoryLimitBytes > maxMemoryBytes
    ) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `memoryLimitBytes is ${String(memoryLimitBytes)}; takes a whole number of bytes from 0 to ${maxMemoryBytes}`,
      );
    }
    const variant = chooseVariant(options.variant);
    const instance = await instantiate(variant);
    return defineBackend(
      { name, device: describeDevice(variant), capabilities, memoryLimitBytes },
      (runtime) => createImplementation(runtime, instance),
    );
  },
};

function chooseVariant(asked: Variant | undefined): Variant {
  if (asked !== undefined && asked !== "simd" && asked !== "relaxed-simd") {
    throw new FlashMoeError("INVALID_ARGUMENT", `variant is ${String(asked)}; takes simd or relaxed-simd`);
  }
  const best = bestVariant();
  if (best === undefined) throw new FlashMoeError("UNAVAILABLE", unsupportedReason());
  if (asked !== undefined && !isSupported(asked)) {
    throw new FlashMoeError("UNAVAILABLE", `this runtime has no WebAssembly with ${asked}; it has ${best}`);
  }
  return asked ?? best;
}

async function instantiate(variant: Variant): Promise<Instance> {
  const module = await compileModule(variant);
  const memory = LinearMemory.create();
  const { exports } = await webAssembly()!.instantiate(module, { env: { memory: memory.memory } });
  return { kernels: exports as Kernels, memory };
}

function describeDevice(variant: Variant): string {
  return `CPU, WebAssembly ${variant === "simd" ? "SIMD" : "relaxed SIMD"}, one thread`;
}
