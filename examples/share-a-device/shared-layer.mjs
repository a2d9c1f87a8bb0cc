// A FlashMoE layer among jax arrays, on the GPUDevice of jax-js: no copy on the way in, none on the way out.
import { gpuRanges, webgpu, wrapGpuBuffer } from "@flash-moe/backend-webgpu";
import { Tensor } from "flash-moe";

/**
 * A flash-moe backend on the device that jax-js runs on, which stays jax-js's: disposing of the backend leaves it alone.
 *
 * @param {typeof import("@jax-js/jax")} jax - after `await jax.init("webgpu")`
 */
export function openOnDeviceOf(jax) {
  return webgpu.open({ device: jax.getWebGPUDevice() });
}

/**
 * The layer as a function of jax arrays: f32 [tokens, hidden] in, the same out. Consumes `x`, as the functions of jax-js
 * do. Both libraries submit to one queue, which runs things in that order, so nobody waits for anybody.
 *
 * @param {typeof import("@jax-js/jax")} jax
 * @param {import("flash-moe").FlashMoE} layer - on the backend of `openOnDeviceOf`
 * @param {import("@jax-js/jax").Array} x
 * @returns {Promise<import("@jax-js/jax").Array>}
 */
export async function applyLayer(jax, layer, x) {
  const { shape } = x;
  // The memory of an array that nobody else has seen yet: the layer writes its result there.
  const y = jax.numpy.zeros(shape, { device: "webgpu" });
  // `.ref`, since gpuBuffer() consumes too; it submits what the array is made by.
  const hiddenStates = wrap(layer.backend, await x.ref.gpuBuffer(), shape);
  const output = wrap(layer.backend, await y.ref.gpuBuffer(), shape);
  layer.forward(hiddenStates, { output });
  gpuRanges(layer.backend, output.buffer); // submits what the layer enqueued, before jax-js goes on
  for (const tensor of [hiddenStates, output]) tensor.dispose(); // the wrappers alone
  x.dispose();
  return y;
}

/** @param {import("flash-moe").Backend} backend @param {GPUBuffer} buffer @param {number[]} shape */
function wrap(backend, buffer, shape) {
  const length = shape.reduce((product, size) => product * size, 1);
  return new Tensor(wrapGpuBuffer(backend, buffer, "f32", length), shape);
}
