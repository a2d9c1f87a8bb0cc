import { wasm } from "@flash-moe/backend-wasm";
import { FlashMoeError } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => vi.unstubAllGlobals());

async function reason(): Promise<string> {
  const result = await wasm.probe();
  return result.available ? "available" : result.reason;
}

it("says that it has no kernels, and gives the same reason when it is opened", async () => {
  expect(wasm.name).toBe("wasm");
  expect(await reason()).toContain("@flash-moe/backend-wasm contains no kernels");
  const error = await wasm.open().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(error).toHaveProperty("message", await reason());
});

it("finds the SIMD of this runtime", async () => {
  expect(await reason()).toContain("does have WebAssembly SIMD");
});

it("says when there is no SIMD, or no WebAssembly", async () => {
  vi.stubGlobal("WebAssembly", { validate: () => false });
  expect(await reason()).toContain("no WebAssembly SIMD");
  vi.stubGlobal("WebAssembly", undefined);
  expect(await reason()).toContain("no WebAssembly SIMD");
});
