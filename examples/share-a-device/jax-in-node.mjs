// jax-js looks for WebGPU where a page has it. In Node the package webgpu offers the same, under other names.
import { create, globals } from "webgpu";

/** Kept: Dawn's instance must outlive its devices. */
const gpu = create([]);

/** jax-js on Dawn. @returns {Promise<typeof import("@jax-js/jax")>} */
export async function openJax() {
  Object.assign(globalThis, globals);
  const navigator = globalThis.navigator ?? { userAgent: "Node" };
  Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
  const jax = await import("@jax-js/jax");
  const devices = await jax.init("webgpu");
  if (!devices.includes("webgpu")) throw new Error("jax-js finds no WebGPU adapter");
  jax.defaultDevice("webgpu");
  return jax;
}
