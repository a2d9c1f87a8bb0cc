import { FlashMoeError } from "@flash-moe/core";
import type { KernelName } from "./kernels.generated.js";
import { bindingKinds, type SlotTypes, specialize } from "./specialize.js";

/** A kernel, made for element types and constants. */
export interface Variant {
  readonly kernel: KernelName;
  readonly types?: SlotTypes;
  /** Values of the kernel's `override` constants. */
  readonly constants?: Readonly<Record<string, number>>;
}

export interface Pipeline {
  readonly kernel: KernelName;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Compiled kernels, each once. */
export class Pipelines {
  readonly #device: GPUDevice;
  readonly #nativeHalf: boolean;
  readonly #ready = new Map<string, Pipeline>();
  readonly #compiling = new Map<string, Promise<void>>();
  readonly #modules = new Map<string, GPUShaderModule>();
  readonly #layouts = new Map<KernelName, GPUBindGroupLayout>();

  /** With `nativeHalf`, the device has `shader-f16` and is to use it. */
  constructor(device: GPUDevice, nativeHalf = false) {
    this.#device = device;
    this.#nativeHalf = nativeHalf;
  }

  /** The pipeline of a variant, compiled now if `prepare` did not. */
  get(variant: Variant): Pipeline {
    const key = variantKey(variant);
    let pipeline = this.#ready.get(key);
    if (pipeline === undefined) {
      const { descriptor, layout } = this.#describe(variant);
      const compiled = this.#device.createComputePipeline(descriptor);
      pipeline = { kernel: variant.kernel, pipeline: compiled, layout };
      this.#ready.set(key, pipeline);
    }
    return pipeline;
  }

  /** Compiles without blocking. COMPILE_FAILED with the device's words. */
  async prepare(variants: readonly Variant[]): Promise<void> {
    await Promise.all(variants.map((variant) => this.#prepareOne(variant)));
  }

  #prepareOne(variant: Variant): Promise<void> {
    const key = variantKey(variant);
    if (this.#ready.has(key)) return Promise.resolve();
    let compiling = this.#compiling.get(key);
    if (compiling === undefined) {
      compiling = this.#compile(variant, key).finally(() => this.#compiling.delete(key));
      this.#compiling.set(key, compiling);
    }
    return compiling;
  }

  async #compile(variant: Variant, key: string): Promise<void> {
    const { descriptor, layout } = this.#describe(variant);
    try {
      const pipeline = await this.#device.createComputePipelineAsync(descriptor);
      if (!this.#ready.has(key)) this.#ready.set(key, { kernel: variant.kernel, pipeline, layout });
    } catch (error) {
      throw FlashMoeError.from(error, "COMPILE_FAILED", `kernel ${key}`);
    }
  }

  #describe(variant: Variant): { descriptor: GPUComputePipelineDescriptor; layout: GPUBindGroupLayout } {
    const { kernel, constants = {} } = variant;
    const layout = this.#layout(kernel);
    const descriptor: GPUComputePipelineDescriptor = {
      label: variantKey(variant),
      layout: this.#device.createPipelineLayout({ label: kernel, bindGroupLayouts: [layout] }),
      compute: { module: this.#module(variant), entryPoint: "main", constants: { ...constants } },
    };
    return { descriptor, layout };
  }

  #module({ kernel, types }: Variant): GPUShaderModule {
    const label = variantKey({ kernel, types });
    let module = this.#modules.get(label);
    if (module === undefined) {
      module = this.#device.createShaderModule({ label, code: specialize(kernel, types, this.#nativeHalf) });
      this.#modules.set(label, module);
    }
    return module;
  }

  #layout(kernel: KernelName): GPUBindGroupLayout {
    let layout = this.#layouts.get(kernel);
    if (layout === undefined) {
      layout = this.#device.createBindGroupLayout({
        label: kernel,
        entries: bindingKinds(kernel).map((type, binding) => ({ binding, visibility: 4, buffer: { type } })),
      });
      this.#layouts.set(kernel, layout);
    }
    return layout;
  }
}

/** Names a variant: "expert_dots states=f16 table=f16". */
export function variantKey({ kernel, types = {}, constants = {} }: Variant): string {
  const settings = [...Object.entries(types), ...Object.entries(constants)];
  return [kernel, ...settings.map(([name, value]) => `${name}=${value}`)].join(" ");
}
