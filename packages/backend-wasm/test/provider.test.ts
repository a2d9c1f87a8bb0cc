import { FlashMoeError } from "@flash-moe/core";
import { afterEach, expect, it, vi } from "vitest";
import { type WasmOptions, wasm } from "../src/index.js";
import { webAssembly } from "../src/web-assembly.js";

afterEach(() => vi.unstubAllGlobals());

async function openError(options?: WasmOptions): Promise<FlashMoeError> {
  const error = await wasm.open(options).catch((thrown: unknown) => thrown);
  if (!FlashMoeError.is(error)) throw new Error(`open gave ${String(error)}`);
  return error;
}

it("is available here, and says what it computes on", async () => {
  expect(wasm.name).toBe("wasm");
  const probe = await wasm.probe();
  if (!probe.available) throw new Error(probe.reason);
  const backend = await wasm.open();
  expect(backend.name).toBe("wasm");
  expect(backend.device).toBe(probe.device);
  await backend.dispose();
});

it.each([
  ["no WebAssembly", undefined],
  ["no WebAssembly SIMD", { validate: () => false }],
])("says that there is %s, and gives the same reason when it is opened", async (what, engine) => {
  vi.stubGlobal("WebAssembly", engine);
  const probe = await wasm.probe();
  expect(probe.available).toBe(false);
  const error = await openError();
  expect(error.code).toBe("UNAVAILABLE");
  expect(probe).toHaveProperty("reason", error.message);
  expect(error.message).toContain(what);
});

it("refuses options that it cannot follow", async () => {
  for (const memoryLimitBytes of [-1, 0.5, Number.NaN, 2 ** 32]) {
    const error = await openError({ memoryLimitBytes });
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.message).toContain(String(memoryLimitBytes));
  }
  expect((await openError({ variant: "avx512" as never })).code).toBe("INVALID_ARGUMENT");
  const misspelt = { thread: 1 } as WasmOptions;
  expect(await openError(misspelt)).toMatchObject({
    code: "INVALID_ARGUMENT",
    message: "wasm has no option thread; takes memoryLimitBytes, variant, threads",
  });
  expect(await wasm.probe(misspelt)).toHaveProperty("reason", expect.stringContaining("no option thread"));
});

it("says which build the engine lacks", async () => {
  const engine = webAssembly()!;
  let calls = 0;
  // The relaxed build is asked about first.
  vi.stubGlobal("WebAssembly", {
    validate: (bytes: Uint8Array) => calls++ % 2 === 1 && engine.validate(bytes),
  });
  const error = await openError({ variant: "relaxed-simd" });
  expect(error.code).toBe("UNAVAILABLE");
  expect(error.message).toContain("relaxed-simd");
});
