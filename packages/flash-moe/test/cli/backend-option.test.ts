import { type BackendProvider, FlashMoeError } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { contribute, hostProvider } from "./contributed-backend.js";
import { writeGoldenFiles } from "./golden-files.js";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
});
afterEach(() => shell.close());

const init = "init --hidden 4 --intermediate 4 --experts 4 --top-k 1 --output l";

describe("--backend", () => {
  it.each(["./mine.mjs", "mine.mjs", "my-backend"])(
    "takes the contributed %s, from the caller's folder",
    async (name) => {
      let opened = 0;
      const provider: BackendProvider = {
        name: "mine",
        probe: () => reference.probe(),
        open: () => {
          opened++;
          return reference.open();
        },
      };
      await contribute(shell, provider);
      const { code, stderr } = await shell.run(`${init} --backend ${name}`);
      expect(stderr).toBe("backend reference on CPU, plain TypeScript (float64)\n");
      expect(code).toBe(0);
      expect(opened).toBe(1);
    },
  );

  it("says which auto takes and why not the others", async () => {
    const { stderr } = await shell.run(`${init} --backend auto`);
    expect(stderr).toMatch(/^backend (cuda|webgpu|wasm|reference) on [^\n]+\n$/);
    if (!stderr.startsWith("backend cuda")) expect(stderr).toMatch(/\(cuda: \w+/);
    expect((await shell.run(`${init} --backend auto --json`)).stderr).toBe("");
  });

  it("refuses a module without a provider", async () => {
    await contribute(shell, { name: "half" });
    const { code, stderr } = await shell.run(`${init} --backend ./mine.mjs`);
    expect(stderr).toMatch(
      /^flash-moe: INVALID_ARGUMENT: backend is file:\S+mine\.mjs, whose default export has no probe/,
    );
    expect(code).toBe(1);
  });

  it("disposes of the backend, whether it went well or not", async () => {
    const backends: Awaited<ReturnType<BackendProvider["open"]>>[] = [];
    await contribute(shell, {
      name: "mine",
      probe: () => reference.probe(),
      open: async () => {
        backends.push(await reference.open({ memoryLimitBytes: 2000 }));
        return backends[backends.length - 1];
      },
    });
    expect((await shell.run(`${init} --backend ./mine.mjs`)).code).toBe(0);
    const { code, stderr } = await shell.run(`${init.replace("4 --top", "1024 --top")} --backend ./mine.mjs`);
    expect(stderr).toMatch(
      /OUT_OF_MEMORY: the layer needs 3\d{4} bytes \(\d+(\.\d)? KiB\) for 0 tokens; 2000 bytes are left of the budget of 2000 on backend reference, another --backend may have more\n$/,
    );
    expect(code).toBe(1);
    expect(backends.map(({ disposed }) => disposed)).toEqual([true, true]);
  });

  describe("of a device that fails", () => {
    const args =
      "run --checkpoint checkpoint.safetensors --input input.safetensors --output out --backend ./mine.mjs";
    beforeEach(() => writeGoldenFiles(shell, "layer-flash-eval-silu.safetensors"));

    it.each<[string, BackendProvider, RegExp]>([
      ["lacks an op", hostProvider(), /^flash-moe: UNSUPPORTED: mine has no op linear$/],
      [
        "throws",
        hostProvider({
          ops: () => ({
            linear() {
              throw new TypeError("no such kernel\n  at once");
            },
          }),
        }),
        /^flash-moe: BACKEND_FAILED: mine: linear: no such kernel at once$/,
      ],
      [
        "reports it late",
        hostProvider({
          ops: (runtime) => ({
            linear: () => runtime.fail(new FlashMoeError("COMPILE_FAILED", "line 3 is no kernel")),
            routerSelectForward() {},
            mlpForward() {},
            expertsForward() {},
          }),
        }),
        /^flash-moe: COMPILE_FAILED: line 3 is no kernel$/,
      ],
      [
        "cannot store the dtype",
        hostProvider(),
        /^flash-moe: UNSUPPORTED: backend mine does not store bfloat16$/,
      ],
    ])("and %s: one line with its code, and no file", async (what, provider, message) => {
      await contribute(shell, provider);
      const { code, stderr } = await shell.run(what.includes("dtype") ? `${args} --dtype bfloat16` : args);
      const lines = stderr.trimEnd().split("\n");
      expect(lines).toEqual(["backend mine on nothing", expect.stringMatching(message)]);
      expect(code).toBe(1);
      expect(await shell.files()).not.toContain("out");
    });
  });
});
