/// <reference types="@webgpu/types" />

export interface WebGpuOptions {
  /** Run on this device: a page's own, or another library's. It is not destroyed with the backend. */
  readonly device?: GPUDevice;
  /** Open a device on this adapter. */
  readonly adapter?: GPUAdapter;
  /** Look for an adapter here instead of `navigator.gpu` or the package `webgpu`. */
  readonly gpu?: GPU;
  /** What the adapter is asked for with; `powerPreference` is "high-performance" unless given. */
  readonly adapterOptions?: GPURequestAdapterOptions;
  /**
   * Bytes that buffers and intermediates may take together. By default unlimited, since WebGPU does not tell, and on a
   * software adapter a share of the memory that is free.
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
