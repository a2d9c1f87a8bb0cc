import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type Backend, type BackendProvider, FlashMoeError, type ProbeResult } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { type OpenBackendOptions, openBackend } from "flash-moe";
import { afterEach, describe, expect, it } from "vitest";

/** A provider that notes what it is given, and opens the reference. */
function noting(name: string, probe: ProbeResult = { available: true, device: "paper" }) {
  const given: unknown[] = [];
  const provider: BackendProvider = {
    name,
    probe: async (options) => {
      given.push(["probe", options]);
      return probe;
    },
    open: async (options) => {
      given.push(["open", options]);
      if (!probe.available) throw new FlashMoeError("UNAVAILABLE", probe.reason);
      return reference.open();
    },
  };
  return { provider, given };
}

async function failure(promise: Promise<Backend>): Promise<{ code: string; message: string }> {
  const error: unknown = await promise.then(
    (backend) => backend.dispose(),
    (thrown: unknown) => thrown,
  );
  if (!FlashMoeError.is(error)) throw new Error(`it gave ${String(error)}`);
  return { code: error.code, message: error.message };
}

describe("options of a provider", () => {
  it("reach the one that is named", async () => {
    const { provider, given } = noting("paper");
    const options = { paper: { lines: 7 } };
    await (await openBackend("paper", { providers: [provider], options })).dispose();
    expect(given).toEqual([["open", { lines: 7 }]]);
  });

  it("reach each that auto tries, and nobody else's", async () => {
    const absent = noting("absent", { available: false, reason: "no paper" });
    const plain = noting("plain", { available: false, reason: "no pencil" });
    const { provider, given } = noting("paper");
    const options = { absent: { a: 1 }, paper: { b: 2 } };
    const providers = [absent.provider, plain.provider, provider];
    await (await openBackend("auto", { providers, options })).dispose();
    expect(absent.given).toEqual([
      ["probe", { a: 1 }],
      ["open", { a: 1 }],
    ]);
    expect(plain.given).toEqual([["probe", undefined]]);
    expect(given).toEqual([
      ["probe", { b: 2 }],
      ["open", { b: 2 }],
    ]);
  });

  it("are taken by the built-in backends", async () => {
    const backend = await openBackend("wasm", { options: { wasm: { threads: 1 } } });
    expect(backend.device).toContain("one thread");
    await backend.dispose();
    const small = await openBackend("reference", { options: { reference: { memoryLimitBytes: 1000 } } });
    expect(small.memory().limitBytes).toBe(1000);
    await small.dispose();
  });

  it.each<[string, string, OpenBackendOptions["options"], string]>([
    [
      "wasm",
      "misspelt",
      { wasm: { thread: 1 } as object },
      "wasm has no option thread; takes memoryLimitBytes",
    ],
    [
      "wasm",
      "of the wrong type",
      { wasm: { threads: "1" } as object },
      'wasm: threads is "1"; takes a whole',
    ],
    ["cuda", "where there is no GPU", { cuda: { device: -1 } }, "cuda: device is -1; takes a whole number"],
    ["auto", "of one that would be passed over", { cuda: { gpu: 1 } as object }, "cuda has no option gpu"],
    [
      "auto",
      "of nobody",
      { wsam: { threads: 1 } },
      "options has wsam, which is no backend; takes cuda, webgpu,",
    ],
    ["reference", "beside a name", { wsam: {} }, "options has wsam, which is no backend"],
  ])("for %s, %s, are INVALID_ARGUMENT", async (name, _, options, message) => {
    expect(await failure(openBackend(name, { options }))).toEqual({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining(message),
    });
  });

  it("go under the backend's name: beside it they are INVALID_ARGUMENT", async () => {
    const misplaced = { threads: 1 } as OpenBackendOptions;
    expect(await failure(openBackend("wasm", misplaced))).toEqual({
      code: "INVALID_ARGUMENT",
      message: "openBackend has no option threads; takes providers, options, onChoice",
    });
  });

  it("make no software adapter one that auto takes", async () => {
    const software = noting("soft", { available: true, device: "llvmpipe", software: true });
    const message = await failure(
      openBackend("auto", { providers: [software.provider], options: { soft: {} } }),
    );
    expect(message).toEqual({
      code: "UNAVAILABLE",
      message: expect.stringContaining("llvmpipe computes on"),
    });
    expect(software.given).toEqual([["probe", {}]]);
  });
});

describe("a contributed backend", () => {
  let folder: string;
  afterEach(() => rm(folder, { recursive: true, force: true }));

  async function file(source: string): Promise<string> {
    folder = await mkdtemp(join(tmpdir(), "flash-moe-backend-"));
    await writeFile(join(folder, "mine.mjs"), source);
    return join(folder, "mine.mjs");
  }

  it("is found by its path and by its URL, its options by its name", async () => {
    const path = await file(`
      export const given = [];
      export default {
        name: "mine",
        probe: async () => ({ available: true, device: "x" }),
        open: async (options) => { given.push(options); return { specVersion: 1 }; },
      };`);
    const url = pathToFileURL(path).href;
    for (const name of [path, url]) await openBackend(name, { options: { mine: { a: 1 } } });
    expect(((await import(/* @vite-ignore */ url)) as { given: unknown[] }).given).toContainEqual({ a: 1 });
    expect(await failure(openBackend(url, { options: { yours: {} } }))).toMatchObject({
      code: "INVALID_ARGUMENT",
      message:
        "openBackend: options has yours, which is no backend; takes cuda, webgpu, wasm, reference, mine",
    });
  });

  it.each([
    ["export const mine = {};", "which exports mine, and no default; takes auto, cuda"],
    ["export default { name: 'mine', open() {} };", "whose default export has no probe(); takes"],
    ["export default { probe() {}, open() {} };", "whose default export has no name; takes"],
    ["export default {};", "whose default export has no name and probe() and open(); takes"],
    [
      "export default { name: 'mine', probe() {}, async open() { return { ops: {} }; } };",
      "open() of backend mine gave no backend; takes what defineBackend() returns",
    ],
    [
      "export default { name: 'mine', probe() {}, async open() {} };",
      "open() of backend mine gave no backend",
    ],
  ])("that says %s is INVALID_ARGUMENT", async (source, message) => {
    expect(await failure(openBackend(await file(source)))).toEqual({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining(message),
    });
  });

  it("of another version of the contract is UNSUPPORTED", async () => {
    const path = await file(
      `export default { name: "mine", probe() {}, async open() { return { specVersion: 2, async dispose() {} }; } };`,
    );
    expect(await failure(openBackend(path))).toEqual({
      code: "UNSUPPORTED",
      message: "backend mine follows version 2 of the contract; takes 1",
    });
  });

  it("by a relative path is told where that leads", async () => {
    await file("");
    expect(await failure(openBackend("./my-backend.js"))).toEqual({
      code: "UNAVAILABLE",
      message: expect.stringContaining(
        'is one from flash-moe\'s own folder: make it absolute, or new URL("./my-backend.js", import.meta.url).href',
      ),
    });
  });
});
