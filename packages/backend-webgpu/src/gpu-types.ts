// The types of WebGPU as the project that uses this package has them: its DOM library's, or those of `@webgpu/types`.
// Named directly, they would be errors in the declarations of this package wherever there are none, as on a server.
// There, anything that is an object will do.

interface AnyConstructor<Instance> {
  readonly prototype: Instance;
}

export type GpuDevice = typeof globalThis extends { GPUDevice: AnyConstructor<infer Device> }
  ? Device
  : object;

export type GpuAdapter = typeof globalThis extends { GPUAdapter: AnyConstructor<infer Adapter> }
  ? Adapter
  : object;

export type GpuBuffer = typeof globalThis extends { GPUBuffer: AnyConstructor<infer Buffer> }
  ? Buffer
  : object;

/** What `navigator.gpu` is. */
export type Gpu = typeof globalThis extends { GPU: AnyConstructor<infer Instance> } ? Instance : object;

/** What `requestAdapter` takes. */
export type GpuAdapterOptions = Gpu extends { requestAdapter(options?: infer Options): unknown }
  ? Exclude<Options, undefined>
  : object;
