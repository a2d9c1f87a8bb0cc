import {
  type Backend,
  type BackendProvider,
  type Capabilities,
  defineBackend,
  FlashMoeError,
  type ProbeResult,
} from "@flash-moe/core";
import type { DeviceMemory } from "./device-memory.js";
import { createImplementation } from "./implementation.js";
import {
  checkLimits,
  describeAdapter,
  findAdapter,
  infoOf,
  isSoftware,
  requestDevice,
} from "./open-device.js";
import { checkWebGpuOptions, type WebGpuOptions } from "./options.js";

const name = "webgpu";

/** WebGPU, in a browser, Node (with the package `webgpu`), Deno or Bun. */
export const webgpu: BackendProvider<WebGpuOptions> = {
  name,

  async probe(options: WebGpuOptions = {}): Promise<ProbeResult> {
    try {
      checkWebGpuOptions(options);
      if (options.device !== undefined) return available(options.device);
      const found = await findAdapter(options);
      return "reason" in found ? { available: false, reason: found.reason } : available(found.adapter);
    } catch (error) {
      return { available: false, reason: error instanceof Error ? error.message : String(error) };
    }
  },

  /**
   * UNAVAILABLE, with the reason that `probe` gives; INVALID_ARGUMENT for options that are not as described. On a device that is
   * handed in, other work goes on; its owner destroys it.
   */
  async open(options: WebGpuOptions = {}): Promise<Backend> {
    checkWebGpuOptions(options);
    if (options.device !== undefined) return openOn(options.device, infoOf(options.device), options);
    const found = await findAdapter(options);
    if ("reason" in found) throw new FlashMoeError("UNAVAILABLE", found.reason);
    return openOn(await requestDevice(found.adapter, options), infoOf(found.adapter), options);
  },
};

function available(source: GPUDevice | GPUAdapter): ProbeResult {
  checkLimits(source);
  const info = infoOf(source);
  return { available: true, device: describeAdapter(info), ...(isSoftware(info) && { software: true }) };
}

function openOn(device: GPUDevice, info: GPUAdapterInfo, options: WebGpuOptions): Backend {
  checkLimits(device);
  const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
  // Some drivers pad what they allocate, and then refuse their very largest size.
  const bindingBytes = Math.min(maxBufferSize - 512, maxStorageBufferBindingSize);
  const partBytes = Math.min(options.bindingLimitBytes ?? bindingBytes, bindingBytes);
  return defineBackend<DeviceMemory>(
    {
      name,
      device: describeAdapter(info),
      capabilities: {
        ...capabilities,
        maxOperandBytes: partBytes,
        timestamps: device.features.has("timestamp-query"),
      },
      memoryLimitBytes: options.memoryLimitBytes ?? (isSoftware(info) ? freeMemoryBytes() : null),
    },
    (runtime) =>
      createImplementation(device, runtime, {
        limits: { bindingBytes, partBytes },
        ownsDevice: options.device === undefined,
        nativeHalf: options.shaderF16 === true && device.features.has("shader-f16"),
      }),
  );
}

/**
 * What a device in the host's memory may take: four fifths of what is free, since overcommitment would end the
 * process; null where nobody tells.
 */
function freeMemoryBytes(): number | null {
  const { process } = globalThis as { process?: { availableMemory?: () => number } };
  const free = process?.availableMemory?.();
  return free === undefined ? null : Math.floor(0.8 * free);
}

const capabilities: Omit<Capabilities, "ops" | "forcedLoss" | "timestamps" | "maxOperandBytes"> = {
  dtypes: {
    f32: new Set(["storage", "arithmetic"]),
    f16: new Set(["storage"]),
    bf16: new Set(["storage"]),
  },
  deterministic: true,
  // Kernels count elements in 32 bits, and a 16-bit one has two bytes. Above a binding's size, buffers are split.
  maxBufferBytes: 2 ** 33 - 512,
  maxKeysPerAxis: 4096,
  mlpIntermediate: "f32",
};
