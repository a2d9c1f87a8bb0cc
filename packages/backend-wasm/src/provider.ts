import { type Backend, type BackendProvider, FlashMoeError, type ProbeResult } from "@flash-moe/core";
import { describeSimd } from "./detect.js";

/** WebAssembly SIMD, on the CPU of any runtime. This version cannot be opened: it has no kernels. */
export const wasm: BackendProvider = {
  name: "wasm",

  async probe(): Promise<ProbeResult> {
    return { available: false, reason: unavailable() };
  },

  async open(): Promise<Backend> {
    throw new FlashMoeError("UNAVAILABLE", unavailable());
  },
};

function unavailable(): string {
  return `this version of @flash-moe/backend-wasm contains no kernels yet, use another backend (${describeSimd()})`;
}
