import { cuda } from "@flash-moe/backend-cuda";
import { FlashMoeError } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";

afterEach(() => vi.unstubAllGlobals());

async function reason(): Promise<string> {
  const result = await cuda.probe();
  return result.available ? "available" : result.reason;
}

it("says that it has no kernels, and gives the same reason when it is opened", async () => {
  expect(cuda.name).toBe("cuda");
  expect(await reason()).toContain("@flash-moe/backend-cuda contains no kernels");
  const error = await cuda.open().catch((thrown: unknown) => thrown);
  expect(FlashMoeError.is(error) && error.code).toBe("UNAVAILABLE");
  expect(error).toHaveProperty("message", await reason());
});

it("says whether there is an NVIDIA driver", async () => {
  const present = vi.fn(() => true);
  vi.stubGlobal("process", { getBuiltinModule: () => ({ existsSync: present }) });
  expect(await reason()).toContain("does have an NVIDIA driver");
  expect(present).toHaveBeenCalled();
  vi.stubGlobal("process", { getBuiltinModule: () => ({ existsSync: () => false }) });
  expect(await reason()).toContain("no NVIDIA driver was found");
});

it("answers in a browser too", async () => {
  vi.stubGlobal("process", undefined);
  expect(await reason()).toContain("no file system");
});
