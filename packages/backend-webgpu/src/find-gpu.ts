/** What offers WebGPU here: the runtime itself, or in Node the package `webgpu`. */
export type FoundGpu =
  | { readonly gpu: GPU; readonly from: "runtime" | "package" }
  | { readonly reason: string };

interface DawnPackage {
  create(options: string[]): GPU;
}

/**
 * Dawn's instance, made at first use and kept: collected as garbage while one of its devices lives, it takes the
 * process down. Node ends all the same.
 */
let dawn: GPU | undefined;

/**
 * Timestamps in nanoseconds, which a browser rounds to 100 microseconds, so that no page spies on another; and
 * `shader-f16` on offer where NVIDIA's driver has it, for `WebGpuOptions.shaderF16`.
 */
const dawnOptions = [
  "disable-dawn-features=timestamp_quantization",
  "enable-dawn-features=vulkan_enable_f16_on_nvidia",
];

/** Asks for no adapter. */
export async function findGpu(): Promise<FoundGpu> {
  const { navigator } = globalThis as { navigator?: { gpu?: GPU } };
  if (navigator?.gpu) return { gpu: navigator.gpu, from: "runtime" };
  if (!isNodeLike()) {
    return {
      reason: "this runtime offers no WebGPU (navigator.gpu is missing; pages need https or localhost)",
    };
  }
  if (dawn !== undefined) return { gpu: dawn, from: "package" };
  let loaded: DawnPackage;
  try {
    // Not a literal: a bundler would look for a package that only Node needs.
    const name = "webgpu";
    loaded = (await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as DawnPackage;
  } catch (error) {
    return { reason: explainImport(error) };
  }
  if (lacksVulkanLoader()) {
    return {
      reason: "there is no Vulkan loader: install libvulkan1 and a Vulkan driver of the GPU's vendor",
    };
  }
  try {
    dawn = loaded.create([...dawnOptions]);
    return { gpu: dawn, from: "package" };
  } catch (error) {
    return { reason: `the package webgpu cannot start: ${text(error)}` };
  }
}

/** Why there is no adapter, and what would help. */
export function explainNoAdapter(from: "runtime" | "package"): string {
  if (from === "runtime") {
    return "WebGPU is there but offers no adapter: enable hardware acceleration, update the driver, or try another browser";
  }
  return (
    "the package webgpu finds no adapter: on Linux it needs the loader libvulkan1 and a Vulkan driver of the GPU's " +
    "vendor (Mesa 24 or newer); without a GPU, SwiftShader does (set VK_ICD_FILENAMES to its vk_swiftshader_icd.json)"
  );
}

/** Asked before Dawn looks for it, which would write about it to stderr, whoever listens. */
function lacksVulkanLoader(): boolean {
  const { process } = globalThis as {
    process?: { platform?: string; dlopen?: (module: object, file: string) => void };
  };
  if (process?.platform !== "linux") return false;
  try {
    process.dlopen?.({ exports: {} }, "libvulkan.so.1");
  } catch (error) {
    // It is no addon of Node's, so loading it always throws.
    return text(error).includes("cannot open shared object file");
  }
  return false;
}

function isNodeLike(): boolean {
  return (
    typeof (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node === "string"
  );
}

function explainImport(error: unknown): string {
  const { code } = error as { code?: string };
  if (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND") {
    return "this runtime offers no WebGPU and the package webgpu is not installed: npm install webgpu";
  }
  return `the package webgpu does not load (it needs glibc 2.29 or newer on Linux): ${text(error)}`;
}

function text(error: unknown): string {
  return error instanceof Error ? error.message.split("\n")[0] : String(error);
}
