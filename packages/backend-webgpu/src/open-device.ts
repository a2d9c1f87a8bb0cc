import { FlashMoeError } from "@flash-moe/core";
import { explainNoAdapter, findGpu } from "./find-gpu.js";
import type { WebGpuOptions } from "./options.js";

/** The adapter that the options ask for, or why there is none. */
export async function findAdapter(
  options: WebGpuOptions,
): Promise<{ readonly adapter: GPUAdapter } | { readonly reason: string }> {
  if (options.adapter !== undefined) return { adapter: options.adapter };
  const found = options.gpu === undefined ? await findGpu() : { gpu: options.gpu, from: "runtime" as const };
  if ("reason" in found) return found;
  const { powerPreference = "high-performance", adapterOptions } = options;
  const request = { powerPreference, ...adapterOptions };
  let adapter: GPUAdapter | null;
  try {
    adapter = await found.gpu.requestAdapter(request);
  } catch (error) {
    return { reason: `no adapter: ${error instanceof Error ? error.message : String(error)}` };
  }
  if (adapter === null) return { reason: explainNoAdapter(found.from) };
  return { adapter };
}

/** The limits that a device is asked for: all that the adapter has of those that matter here. */
const wantedLimits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
] as const;

export async function requestDevice(adapter: GPUAdapter, { shaderF16 }: WebGpuOptions): Promise<GPUDevice> {
  const wantedFeatures: GPUFeatureName[] = ["timestamp-query"];
  if (shaderF16) wantedFeatures.push("shader-f16");
  const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, adapter.limits[name]]));
  try {
    const requiredFeatures = wantedFeatures.filter((name) => adapter.features.has(name));
    return await adapter.requestDevice({ label: "flash-moe", requiredFeatures, requiredLimits });
  } catch (error) {
    throw FlashMoeError.from(error, "UNAVAILABLE", `${describeAdapter(infoOf(adapter))} gives no device`);
  }
}

/** What kernels need of a device, whoever opened it: no more than the standard promises. */
const neededLimits = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupsPerDimension: 65_535,
} as const;

/** UNAVAILABLE where a device, or what an adapter can give, is less than the kernels need. */
export function checkLimits(source: GPUDevice | GPUAdapter): void {
  for (const [name, needed] of Object.entries(neededLimits)) {
    const value = source.limits[name as keyof typeof neededLimits];
    if (value < needed) {
      throw new FlashMoeError(
        "UNAVAILABLE",
        `the device has ${name} ${value}; flash-moe needs at least ${needed}`,
      );
    }
  }
}

/** Older browsers do not tell. */
const unknownInfo: Pick<GPUAdapterInfo, "vendor" | "architecture" | "device" | "description"> = {
  vendor: "",
  architecture: "",
  device: "",
  description: "",
};

/** What is known of an adapter, or of the adapter of a device. */
export function infoOf(source: GPUAdapter | GPUDevice): GPUAdapterInfo {
  const { info, adapterInfo } = source as { info?: GPUAdapterInfo; adapterInfo?: GPUAdapterInfo };
  return info ?? adapterInfo ?? (unknownInfo as GPUAdapterInfo);
}

/** The device, for people: "NVIDIA H200 (nvidia, hopper)". */
export function describeAdapter(info: GPUAdapterInfo): string {
  const detail = [info.vendor, info.architecture].filter((part) => part !== "").join(", ");
  const name = info.description || info.device || detail || "a WebGPU adapter";
  const named = detail !== "" && name !== detail ? `${name} (${detail})` : name;
  return isSoftware(info) ? `${named}, software` : named;
}

/** Whether an adapter computes on the CPU. */
export function isSoftware(info: GPUAdapterInfo): boolean {
  const words = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  return info.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render/.test(words);
}
