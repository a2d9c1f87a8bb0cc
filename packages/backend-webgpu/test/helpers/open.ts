import { type WebGpuOptions, webgpu } from "@flash-moe/backend-webgpu";
import type { Backend } from "@flash-moe/core";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { it } from "vitest";
import { provideSoftwareAdapter } from "./software-adapter.js";

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

/** A device of somebody else's: opened without the backend. */
export async function openDevice(): Promise<GPUDevice> {
  // Kept for good: Dawn's instance must outlive its devices.
  gpu ??= ((await import("webgpu")) as unknown as DawnPackage).create([]);
  const adapter = await gpu.requestAdapter();
  return adapter!.requestDevice();
}

/** The usage flags of buffers, which Node has no global for. */
export const usage = { copySource: 0x4, copyTarget: 0x8, storage: 0x80 } as const;
