import { type WebGpuOptions, webgpu } from "@flash-moe/backend-webgpu";
import type { Backend } from "@flash-moe/core";
import { provideSoftwareAdapter } from "./software-adapter.js";

/** A backend on whatever adapter there is: SwiftShader from npm where there is no other. */
export function openBackend(options: WebGpuOptions = {}): Promise<Backend> {
  provideSoftwareAdapter();
  return webgpu.open(options);
}

interface DawnPackage {
  create(options: string[]): GPU;
}

let gpu: GPU | undefined;

/** A device of somebody else's: opened without the backend. */
export async function openDevice(): Promise<GPUDevice> {
  provideSoftwareAdapter();
  // Kept for good: Dawn's instance must outlive its devices.
  gpu ??= ((await import("webgpu")) as unknown as DawnPackage).create([]);
  const adapter = await gpu.requestAdapter();
  return adapter!.requestDevice();
}

/** The usage flags of buffers, which Node has no global for. */
export const usage = { copySource: 0x4, copyTarget: 0x8, storage: 0x80 } as const;
