import { type WebGpuOptions, webgpu } from "@flash-moe/backend-webgpu";
import { provideSoftwareAdapter } from "@flash-moe/chromium";
import type { Backend } from "@flash-moe/core";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { it } from "vitest";

provideSoftwareAdapter();
const probe = await webgpu.probe();

/** Whether tests go without an adapter: there is none, and FLASH_MOE_REQUIRE does not name webgpu. */
export const withoutAdapter: boolean =
  !probe.available && !requiredBackends(process.env.FLASH_MOE_REQUIRE).has(webgpu.name);

/** `it`, for tests that need an adapter: skipped where there is none, unless it is required. */
export const itOnAdapter: typeof it = it.skipIf(withoutAdapter) as typeof it;

/** A backend on whatever adapter there is: SwiftShader from npm where there is no other. */
export function openBackend(options: WebGpuOptions = {}): Promise<Backend> {
  return webgpu.open(options);
}

interface DawnPackage {
  create(options: string[]): GPU;
}

let gpu: GPU | undefined;

/** An adapter that was not found by the backend. */
async function findAdapter(): Promise<GPUAdapter> {
  // Kept for good: Dawn's instance must outlive its devices.
  gpu ??= ((await import("webgpu")) as unknown as DawnPackage).create([]);
  return (await gpu.requestAdapter())!;
}

/** A device of somebody else's: opened without the backend. */
export async function openDevice(requiredFeatures: GPUFeatureName[] = []): Promise<GPUDevice> {
  return (await findAdapter()).requestDevice({ requiredFeatures });
}

/** An adapter that has no features to offer, and hands its devices to `opened`. */
export async function bareAdapter(opened: (device: GPUDevice) => void = () => {}): Promise<GPUAdapter> {
  const adapter = await findAdapter();
  return {
    features: new Set(),
    limits: adapter.limits,
    info: adapter.info,
    async requestDevice(descriptor) {
      const device = await adapter.requestDevice(descriptor);
      opened(device);
      return device;
    },
  } as Partial<GPUAdapter> as GPUAdapter;
}

/** A device of somebody else's with other properties than it has. */
export function altered(device: GPUDevice, properties: Partial<Record<keyof GPUDevice, unknown>>): GPUDevice {
  return new Proxy(device, {
    get(target, key) {
      if (key in properties) return properties[key as keyof GPUDevice];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A device whose `lost` settles when `lose` is called: of a driver that fails, and not of its owner's will. */
export async function openFragileDevice(): Promise<{
  device: GPUDevice;
  lose: (info: Pick<GPUDeviceLostInfo, "reason" | "message">) => void;
}> {
  let lose!: (info: Pick<GPUDeviceLostInfo, "reason" | "message">) => void;
  const lost = new Promise((resolve) => {
    lose = resolve;
  });
  return { device: altered(await openDevice(), { lost }), lose };
}

/** All limits of a device, to be changed. */
export function limitsOf({ limits }: GPUDevice): Record<string, number> {
  const values: Record<string, number> = {};
  for (const name in limits) values[name] = limits[name as keyof GPUSupportedLimits] as number;
  return values;
}

/** A device that has and binds no buffer of more than `mostBytes`: less than any device that there is. */
export async function openSmallDevice(mostBytes: number): Promise<GPUDevice> {
  const device = await openDevice();
  const limits = limitsOf(device);
  const refused = limits.maxBufferSize + 4;
  return altered(device, {
    limits: { ...limits, maxBufferSize: mostBytes, maxStorageBufferBindingSize: mostBytes },
    createBuffer: (descriptor: GPUBufferDescriptor) =>
      device.createBuffer(descriptor.size > mostBytes ? { ...descriptor, size: refused } : descriptor),
  });
}

/** The usage flags of buffers, which Node has no global for. */
export const usage = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80 } as const;
