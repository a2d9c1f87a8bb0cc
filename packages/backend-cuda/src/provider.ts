import { type Backend, type BackendProvider, FlashMoeError, type ProbeResult } from "@flash-moe/core";
import { describeDriver } from "./detect.js";

/** CUDA, in Node on an NVIDIA GPU. This version cannot be opened: it has no kernels. */
export const cuda: BackendProvider = {
  name: "cuda",

  async probe(): Promise<ProbeResult> {
    return { available: false, reason: unavailable() };
  },

  async open(): Promise<Backend> {
    throw new FlashMoeError("UNAVAILABLE", unavailable());
  },
};

function unavailable(): string {
  return `this version of @flash-moe/backend-cuda contains no kernels yet, use another backend (${describeDriver()})`;
}
