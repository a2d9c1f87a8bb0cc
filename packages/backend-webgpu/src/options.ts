import { checkOptions, takes } from "@flash-moe/core";
import type { Gpu, GpuAdapter, GpuAdapterOptions, GpuDevice } from "./gpu-types.js";

export interface WebGpuOptions {
  /** Run on this device: a page's own, or another library's. It is not destroyed with the backend. */
  readonly device?: GpuDevice;
  /** Open a device on this adapter. */
  readonly adapter?: GpuAdapter;
  /** Look for an adapter here instead of `navigator.gpu` or the package `webgpu`. */
  readonly gpu?: Gpu;
  /** Which GPU of a machine that has two; "high-performance" unless given. */
  readonly powerPreference?: "high-performance" | "low-power";
  /** What else the adapter is asked for with. */
  readonly adapterOptions?: GpuAdapterOptions;
  /**
   * Bytes that buffers, intermediates and the copies that reads of more than 64 KiB are mapped from may take together.
   * By default unlimited, since WebGPU does not tell, and on a software adapter a share of the memory that is free.
   */
  readonly memoryLimitBytes?: number;
  /**
   * Read f16 as the device's own where it has the feature `shader-f16`, instead of by integer code. Sums stay f32, and
   * results the same. Default false.
   */
  readonly shaderF16?: boolean;
  /**
   * Split buffers as if the device bound no more than this at once: what a test needs to see tables split. At least
   * 512; by default the device's own limit.
   */
  readonly bindingLimitBytes?: number;
}

/** INVALID_ARGUMENT for options that are not as described. */
export function checkWebGpuOptions(options: WebGpuOptions): void {
  checkOptions("webgpu", options, {
    device: takes.object("a GPUDevice", "createBuffer"),
    adapter: takes.object("a GPUAdapter", "requestDevice"),
    gpu: takes.object("a GPU", "requestAdapter"),
    powerPreference: takes.oneOf("high-performance", "low-power"),
    adapterOptions: takes.object("an object"),
    memoryLimitBytes: takes.wholeNumber(0),
    shaderF16: takes.flag,
    bindingLimitBytes: takes.wholeNumber(512),
  });
}
