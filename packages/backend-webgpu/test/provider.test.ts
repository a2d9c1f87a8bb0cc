import { webgpu } from "@flash-moe/backend-webgpu";
import { FlashMoeError } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => vi.unstubAllGlobals());

async function reason(): Promise<string> {
  const result = await webgpu.probe();
  return result.available ? "available" : result.reason;
}

it("says that it has no kernels, and gives the same reason when it is opened", async () => {
  expect(webgpu.name).toBe("webgpu");
  expect(await reason()).toContain("@flash-moe/backend-webgpu contains no kernels");
  const error = await webgpu.open().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(error).toHaveProperty("message", await reason());
});

it("says whether the runtime offers WebGPU", async () => {
  vi.stubGlobal("navigator", { gpu: {} });
  expect(await reason()).toContain("does offer WebGPU");
  vi.stubGlobal("navigator", {});
  expect(await reason()).toContain("offers no WebGPU");
  vi.stubGlobal("navigator", undefined);
  expect(await reason()).toContain("offers no WebGPU");
});
