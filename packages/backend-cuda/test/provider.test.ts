import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type CudaOptions, cuda } from "@flash-moe/backend-cuda";
import { FlashMoeError } from "@flash-moe/core";
import { afterEach, describe, expect, it, vi } from "vitest";
import { itOnShim, openShim, shimBinary } from "./helpers/shim.js";

afterEach(() => vi.unstubAllGlobals());

async function reason(options?: CudaOptions): Promise<string> {
  const result = await cuda.probe(options);
  return result.available ? "available" : result.reason;
}

/** What a process says in which the shim makes up this machine. */
async function reasonOn(
  machine: string,
): Promise<{ probe: string; open: string; wgmma: string; noise: string }> {
  const script = fileURLToPath(new URL("helpers/probe.mjs", import.meta.url));
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, shimBinary()], {
    env: { ...process.env, FLASH_MOE_SHIM_DEVICE: machine },
  });
  return { ...JSON.parse(stdout), noise: stderr };
}

/** A process object of a machine on which only these files are. */
function machine(files: Record<string, string>, platform = "linux", arch = "x64"): object {
  const { getBuiltinModule } = process;
  const fs = {
    existsSync: (path: string) => path in files,
    readFileSync: (path: string) => {
      if (path in files) return files[path];
      throw new Error("ENOENT");
    },
  };
  const module = {
    createRequire: () => ({
      resolve: () => {
        throw new Error("MODULE_NOT_FOUND");
      },
    }),
  };
  return {
    platform,
    arch,
    env: {},
    getBuiltinModule: (name: string) =>
      ({ "node:fs": fs, "node:module": module })[name] ?? getBuiltinModule(name),
  };
}

const driverFile = {
  "/proc/driver/nvidia/version":
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n",
};

describe("probe says what is missing:", () => {
  it("a runtime that loads addons", async () => {
    vi.stubGlobal("process", undefined);
    expect(await reason()).toContain("does not load addons");
  });

  it("the platform", async () => {
    vi.stubGlobal("process", machine({}, "darwin", "arm64"));
    expect(await reason()).toMatch(/linux x64.*this is darwin arm64/);
  });

  it("the package with the binary, and what it would find", async () => {
    vi.stubGlobal("process", machine({}));
    expect(await reason()).toBe(
      "this machine has no NVIDIA driver, and the package @flash-moe/backend-cuda-linux-x64 with the binary is not installed",
    );
    vi.stubGlobal("process", machine(driverFile));
    expect(await reason()).toMatch(
      /npm install @flash-moe\/backend-cuda-linux-x64.*has NVIDIA driver 580\.65\.06/,
    );
    vi.stubGlobal("process", machine({ "/usr/lib/wsl/lib/libcuda.so.1": "" }));
    expect(await reason()).toContain("this machine has an NVIDIA driver");
  });

  it("the C library of the binary", async () => {
    vi.stubGlobal("process", machine({ "/lib/ld-musl-x86_64.so.1": "" }));
    expect(await reason()).toContain("musl");
  });

  it("a binary that can be loaded", async () => {
    const folder = await mkdtemp(join(tmpdir(), "flash-moe-cuda-"));
    const binary = join(folder, "broken.node");
    await writeFile(binary, "not a library");
    expect(await reason({ binary })).toMatch(/broken\.node does not load: .*(too short|invalid ELF)/);
    await rm(folder, { recursive: true });
  });

  itOnShim("a binary of this version", async () => {
    const folder = await mkdtemp(join(tmpdir(), "flash-moe-cuda-"));
    const binary = join(folder, "other.cjs");
    await writeFile(binary, "module.exports = { interfaceVersion: 99 };");
    expect(await reason({ binary })).toMatch(/another version of @flash-moe\/backend-cuda.*99/);
    await rm(folder, { recursive: true });
  });

  itOnShim.each([
    ["the driver", "count=-1", /no NVIDIA driver/],
    ["a newer driver", "driver=11080", /driver is too old: it supports CUDA 11\.8.*needs 13\.0.*580/],
    ["a device", "count=0", /no device/],
    ["a newer device", "sm=75", /compute capability 7\.5, older than 8\.0/],
  ])("%s", async (_, made, expected) => {
    const { probe, open, noise } = await reasonOn(made);
    expect(probe).toMatch(expected);
    expect(open).toBe(`UNAVAILABLE: ${probe}`);
    expect(noise).toBe("");
  });

  itOnShim("the device that was asked for", async () => {
    const options = { binary: shimBinary(), device: 7 };
    expect(await reason(options)).toBe("device is 7; this machine has one GPU, number 0");
    await expect(cuda.open(options)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });
});

itOnShim.each([
  ["and machine code for it", "sm=90", "available"],
  ["not where its code is translated from older PTX", "sm=90,ptx=80", "UNSUPPORTED"],
  ["not another device", "sm=100", "UNSUPPORTED"],
])("wgmma needs a Hopper: %s", async (_, made, expected) => {
  expect(await reasonOn(made)).toMatchObject({ probe: "available", wgmma: expected, noise: "" });
});

it("gives the same reason when it is opened", async () => {
  vi.stubGlobal("process", machine({}));
  const error = await cuda.open().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(error).toHaveProperty("message", await reason());
});

it.each<[CudaOptions, string]>([
  [{ device: -1 }, "device is -1"],
  [{ device: 0.5 }, "device is 0.5"],
  [{ memoryLimitBytes: -5 }, "memoryLimitBytes is -5"],
  [{ graphs: 1 as unknown as boolean }, "graphs is 1"],
  [{ gpu: 0 } as CudaOptions, "cuda has no option gpu; takes device, memoryLimitBytes, graphs"],
])("refuses %j", async (options, message) => {
  await expect(cuda.open(options)).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringContaining(message),
  });
  expect(await reason(options)).toContain(message);
});

itOnShim("calls the CPU shim what it is, and takes it only by its path", async () => {
  expect(await cuda.probe({ binary: shimBinary() })).toMatchObject({
    available: true,
    software: true,
    device: expect.stringMatching(/CPU shim.*not? (a )?GPU/),
  });
  const found = await cuda.probe();
  expect(found.available && found.device).not.toContain("shim");
});

itOnShim("keeps to the limit of memory that it is given", async () => {
  const backend = await openShim({ memoryLimitBytes: 1000 });
  expect(backend.memory().limitBytes).toBe(1000);
  backend.alloc("f32", 200).dispose();
  expect(() => backend.alloc("f32", 251)).toThrow(/1004 bytes.*1000 bytes are left/);
  await backend.dispose();
});
