import { webgpu } from "@flash-moe/backend-webgpu";
import { provideSoftwareAdapter } from "@flash-moe/chromium";
import type { Backend } from "@flash-moe/core";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { it } from "vitest";

provideSoftwareAdapter();
const probe = await webgpu.probe();

/** Whether tests go without an adapter: there is none, and FLASH_MOE_REQUIRE does not name webgpu. */
const withoutAdapter = !probe.available && !requiredBackends(process.env.FLASH_MOE_REQUIRE).has(webgpu.name);

/** `it`, for tests that need an adapter: skipped where there is none, unless it is required. */
export const itOnAdapter: typeof it = it.skipIf(withoutAdapter) as typeof it;

/** A backend on whatever adapter there is: SwiftShader from npm where there is no other. */
export function openWebGpu(options: Parameters<typeof webgpu.open>[0] = {}): Promise<Backend> {
  return webgpu.open(options);
}

interface DawnGlobals {
  readonly globals: {
    readonly GPUDevice: { readonly prototype: GPUDevice };
    readonly GPUComputePassEncoder: { readonly prototype: GPUComputePassEncoder };
  };
}

/** The classes of Dawn, whose methods a test can watch. */
export async function dawnClasses(): Promise<DawnGlobals["globals"]> {
  return ((await import("webgpu")) as unknown as DawnGlobals).globals;
}
