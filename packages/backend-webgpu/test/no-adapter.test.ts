import { webgpu } from "@flash-moe/backend-webgpu";
import { afterEach, expect, it, vi } from "vitest";

// In a file of its own: once Dawn is loaded in a process, it is not looked for again.
afterEach(() => vi.unstubAllGlobals());

async function reason(): Promise<string> {
  const result = await webgpu.probe();
  return result.available ? "available" : result.reason;
}

it("says that a runtime has no WebGPU", async () => {
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("process", undefined);
  expect(await reason()).toContain("navigator.gpu is missing");
});

it("says that Linux has no Vulkan loader, without asking Dawn, which would complain on stderr", async () => {
  vi.stubGlobal("navigator", undefined);
  vi.stubGlobal("process", {
    platform: "linux",
    versions: { node: "20.0.0" },
    dlopen: () => {
      throw new Error("libvulkan.so.1: cannot open shared object file: No such file or directory");
    },
  });
  expect(await reason()).toContain("install libvulkan1");
});
