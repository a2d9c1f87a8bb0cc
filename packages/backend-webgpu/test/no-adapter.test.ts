import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { webgpu } from "@flash-moe/backend-webgpu";
import { afterEach, expect, it, vi } from "vitest";

// In a file of its own: once Dawn is loaded in a process, it is not looked for again.
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

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
  vi.spyOn(process, "platform", "get").mockReturnValue("linux");
  const dlopen = process.dlopen.bind(process);
  vi.spyOn(process, "dlopen").mockImplementation((...[module, file, flags]) => {
    if (file !== "libvulkan.so.1")
      return flags === undefined ? dlopen(module, file) : dlopen(module, file, flags);
    throw new Error(`${file}: cannot open shared object file: No such file or directory`);
  });
  expect(await reason()).toContain("install libvulkan1");
});

it("names the package webgpu where that is missing, before what else is", async () => {
  const script = `
    import { register } from "node:module";
    const refuse = \`export function resolve(name, context, next) {
      if (name !== "webgpu") return next(name, context);
      throw Object.assign(new Error("not found"), { code: "ERR_MODULE_NOT_FOUND" });
    }\`;
    register("data:text/javascript," + encodeURIComponent(refuse));
    process.dlopen = () => {
      throw new Error("libvulkan.so.1: cannot open shared object file: No such file or directory");
    };
    const { webgpu } = await import(${JSON.stringify(import.meta.resolve("../dist/index.js"))});
    console.log((await webgpu.probe()).reason);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]);
  expect(stdout).toContain("npm install webgpu");
});
