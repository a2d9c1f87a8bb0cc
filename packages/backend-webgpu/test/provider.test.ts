import { webgpu } from "@flash-moe/backend-webgpu";
import { FlashMoeError } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";
import { altered, bareAdapter, itOnAdapter, limitsOf, openBackend, openDevice } from "./helpers/open.js";

afterEach(() => vi.unstubAllGlobals());

async function reason(options?: Parameters<typeof webgpu.probe>[0]): Promise<string> {
  const result = await webgpu.probe(options);
  return result.available ? "available" : result.reason;
}

async function codeOf(work: () => Promise<unknown>): Promise<string | undefined> {
  const error = await work().catch((thrown: unknown) => thrown);
  return FlashMoeError.is(error) ? error.code : undefined;
}

const without = (adapter: unknown): GPU => ({ requestAdapter: async () => adapter }) as unknown as GPU;

itOnAdapter("describes the adapter, and says that a software adapter is one", async () => {
  const result = await webgpu.probe();
  expect(result.available).toBe(true);
  const described = result.available ? result.device : "";
  expect(described).not.toBe("");
  if (described.includes("SwiftShader")) {
    expect(result).toMatchObject({ software: true });
    expect(described).toContain("software");
  }
});

it("says what to do where the runtime has no adapter, and gives the same reason when it is opened", async () => {
  vi.stubGlobal("navigator", { gpu: without(null) });
  expect(await reason()).toContain("no adapter");
  const error = await webgpu.open().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(error).toHaveProperty("message", await reason());
});

it("never throws when it probes", async () => {
  const broken = {
    requestAdapter: () => {
      throw new Error("the driver crashed");
    },
  } as unknown as GPU;
  expect(await reason({ gpu: broken })).toContain("the driver crashed");
});

it("is unavailable where an adapter gives no device, or too small a one", async () => {
  const info = { vendor: "v", architecture: "a", device: "", description: "" };
  const refuses = {
    info,
    features: new Set(),
    limits: {},
    requestDevice: async () => {
      throw new Error("too many devices");
    },
  };
  expect(await codeOf(() => webgpu.open({ gpu: without(refuses) }))).toBe("UNAVAILABLE");
  const limits = { maxStorageBuffersPerShaderStage: 4 };
  const small = { info, features: new Set(), limits, requestDevice: async () => ({ limits }) };
  const error = await webgpu.open({ gpu: without(small) }).catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(String(error)).toContain("maxStorageBuffersPerShaderStage 4");
});

itOnAdapter("is unavailable on a device that has less than the kernels need, and probe says so", async () => {
  const device = await openDevice();
  const limits = { ...limitsOf(device), maxComputeWorkgroupStorageSize: 8192 };
  const small = altered(device, { limits });
  const said = "the device has maxComputeWorkgroupStorageSize 8192; flash-moe needs at least 16384";
  expect(await reason({ device: small })).toBe(said);
  const error = await webgpu.open({ device: small }).catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(String(error)).toContain(said);
  device.destroy();
});

itOnAdapter("opens on a device that is lost already, and says so at once", async () => {
  const device = await openDevice();
  device.destroy();
  const backend = await webgpu.open({ device });
  expect((await backend.lost).reason).toBe("destroyed");
  expect(await codeOf(async () => backend.alloc("f32", 1))).toBe("DEVICE_LOST");
  await backend.dispose();
});

it("refuses a device that is none", async () => {
  for (const device of [null, {}, "gpu"]) {
    expect(await codeOf(() => webgpu.open({ device: device as unknown as GPUDevice }))).toBe(
      "INVALID_ARGUMENT",
    );
    expect(await reason({ device: device as unknown as GPUDevice })).toContain("takes a GPUDevice");
  }
});

it("refuses an option that it does not have, or cannot take", async () => {
  const misspelt = { powerPreferences: "low-power" } as Parameters<typeof webgpu.open>[0];
  expect(await codeOf(() => webgpu.open(misspelt))).toBe("INVALID_ARGUMENT");
  expect(await reason(misspelt)).toMatch(/^webgpu has no option powerPreferences; takes device, adapter, /);
  const unknown = { powerPreference: "eco" as GPUPowerPreference };
  expect(await codeOf(() => webgpu.open(unknown))).toBe("INVALID_ARGUMENT");
  expect(await reason(unknown)).toContain('powerPreference is "eco"; takes high-performance or low-power');
});

it("asks for the GPU that is preferred, by default the fast one", async () => {
  const asked: unknown[] = [];
  const gpu = {
    requestAdapter: async (request: unknown) => {
      asked.push(request);
      return null;
    },
  } as unknown as GPU;
  await webgpu.probe({ gpu });
  await webgpu.probe({ gpu, powerPreference: "low-power", adapterOptions: { forceFallbackAdapter: true } });
  expect(asked).toEqual([
    { powerPreference: "high-performance" },
    { powerPreference: "low-power", forceFallbackAdapter: true },
  ]);
});

it("refuses limits that are none", async () => {
  for (const bindingLimitBytes of [511, -1, Number.NaN, 1000.5]) {
    expect(await codeOf(() => webgpu.open({ bindingLimitBytes }))).toBe("INVALID_ARGUMENT");
  }
  for (const memoryLimitBytes of [-1, 0.5, Number.POSITIVE_INFINITY]) {
    expect(await codeOf(() => webgpu.open({ memoryLimitBytes }))).toBe("INVALID_ARGUMENT");
  }
});

itOnAdapter("asks for all that the adapter can bind, not for what every device can", async () => {
  let opened!: GPUDevice;
  const adapter = await bareAdapter((device) => {
    opened = device;
  });
  const backend = await openBackend({ adapter });
  for (const name of ["maxBufferSize", "maxStorageBufferBindingSize"] as const) {
    expect(opened.limits[name], name).toBe(adapter.limits[name]);
  }
  const { maxOperandBytes } = backend.capabilities;
  // Less what a driver may pad its largest buffer by.
  expect(adapter.limits.maxStorageBufferBindingSize - maxOperandBytes!).toBeLessThanOrEqual(512);
  await backend.dispose();
});

itOnAdapter("keeps to a memory limit that it is given", async () => {
  const backend = await openBackend({ memoryLimitBytes: 4096 });
  const buffer = backend.alloc("f32", 1000);
  expect(() => backend.alloc("f32", 100)).toThrow(/400 bytes.*96 bytes are left/);
  buffer.dispose();
  backend.alloc("f32", 900).dispose();
  await backend.dispose();
});
