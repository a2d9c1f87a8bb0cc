import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  defineBackend,
  FlashMoeError,
  type ProbeResult,
} from "@flash-moe/core";
import type { Addon, NativeDevice, NativeDeviceInfo } from "./addon.js";
import { type Availability, findDevice } from "./availability.js";
import type { CudaBuffer } from "./cuda-buffer.js";
import { createImplementation } from "./implementation.js";
import { toFlashMoeError } from "./native-error.js";
import { type CudaOptions, checkCudaOptions } from "./options.js";
import { rememberDevice } from "./timing.js";

const name = "cuda";

/** CUDA, in Node.js on an NVIDIA GPU. Nothing is loaded before it is asked for, and nothing is ever printed. */
export const cuda: BackendProvider<CudaOptions> = {
  name,

  async probe(options: CudaOptions = {}): Promise<ProbeResult> {
    let found: Availability;
    try {
      checkCudaOptions(options);
      found = findDevice(options);
    } catch (error) {
      return { available: false, reason: error instanceof Error ? error.message : String(error) };
    }
    if ("reason" in found) return { available: false, reason: found.reason };
    const { addon, info } = found;
    return { available: true, device: describe(addon, info), ...(addon.shim && { software: true }) };
  },

  /** INVALID_ARGUMENT for options that are not as described; UNAVAILABLE, with the reason that `probe` gives. */
  async open(options: CudaOptions = {}): Promise<Backend> {
    checkCudaOptions(options);
    const found = findDevice(options);
    if ("reason" in found) throw new FlashMoeError("UNAVAILABLE", found.reason);
    const { addon, info, index } = found;
    const device = openDevice(addon, index, options);
    const backend = defineBackend<CudaBuffer>(
      {
        name,
        device: describe(addon, info),
        capabilities,
        memoryLimitBytes: options.memoryLimitBytes ?? device.memory[3],
      },
      (runtime) => createImplementation(device, runtime),
    );
    rememberDevice(backend, device);
    return backend;
  },
};

function openDevice(addon: Addon, index: number, options: CudaOptions): NativeDevice {
  const { memoryLimitBytes = -1, graphs = true } = options;
  try {
    return addon.open(index, memoryLimitBytes, graphs);
  } catch (error) {
    throw toFlashMoeError(error);
  }
}

function describe({ shim }: Addon, info: NativeDeviceInfo): string {
  const { computeCapability } = info;
  if (shim) return info.name;
  return `${info.name} (compute capability ${Math.floor(computeCapability / 10)}.${computeCapability % 10})`;
}

const capabilities: Omit<Capabilities, "ops" | "forcedLoss"> = {
  dtypes: {
    f32: new Set(["storage", "arithmetic"]),
    f16: new Set(["storage", "arithmetic", "accelerated"]),
    bf16: new Set(["storage", "arithmetic", "accelerated"]),
  },
  deterministic: true,
  // More than any GPU has: kernels count in 64 bits, and only memory ends.
  maxBufferBytes: 2 ** 40,
  // Ranks have 16 bits where k is above 64 (router_bisect).
  maxKeysPerAxis: 2 ** 16,
  timestamps: true,
  // On tensor cores, whose operands have 16 bits.
  mlpIntermediate: "storage",
};
