import { type Backend, type BackendProvider, FlashMoeError, type ProbeResult } from "@flash-moe/core";
import { describeWebGpu } from "./detect.js";

/** WebGPU, in a browser, Node, Deno or Bun. This version cannot be opened: it has no kernels. */
export const webgpu: BackendProvider = {
  name: "webgpu",

  async probe(): Promise<ProbeResult> {
    return { available: false, reason: unavailable() };
  },

  async open(): Promise<Backend> {
    throw new FlashMoeError("UNAVAILABLE", unavailable());
  },
};

function unavailable(): string {
  return `this version of @flash-moe/backend-webgpu contains no kernels yet, use another backend (${describeWebGpu()})`;
}
