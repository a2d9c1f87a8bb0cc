import { writeFile } from "node:fs/promises";
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

describe("--backend-options", () => {
  it("reach the backend as what they look like", async () => {
    let given: unknown;
    await contribute(shell, {
      name: "mine",
      probe: () => reference.probe(),
      open: (options) => {
        given = options;
        return reference.open();
      },
    });
    const options = "threads=3,trace=true,quiet=false,rate=-1.5e-3,path=./a=b,label=";
    expect((await shell.run(`${init} --backend ./mine.mjs --backend-options ${options}`)).code).toBe(0);
    expect(given).toEqual({ threads: 3, trace: true, quiet: false, rate: -0.0015, path: "./a=b", label: "" });
  });

  it("choose the threads of wasm, in every command that has a backend", async () => {
    const { code, stderr } = await shell.run(`${init} --backend wasm --backend-options threads=1`);
    expect(stderr).toMatch(/^backend wasm on CPU, WebAssembly \S*(relaxed )?SIMD, one thread\n$/);
    expect(code).toBe(0);
    const info = await shell.run("info --backend wasm --backend-options threads=1");
    expect(info.stdout).toContain("one thread");
    const verify = await shell.run("verify --backend wasm --backend-options threads=1 --only capabilities");
    expect(verify.stderr).toMatch(/^backend wasm on [^\n]* one thread\n$/);
    expect(verify.stdout).toMatch(/one thread: conforms, 5 passed, 0 failed, 0 skipped\n$/);
    for (const command of ["run", "bench", "train", "generate"]) {
      expect((await shell.run(`${command} --help`)).stdout).toMatch(/^ {2}--backend-options K=V,\.\.\. /m);
    }
  });

  it.each([
    ["wasm --backend-options thread=1", /^flash-moe: INVALID_ARGUMENT: wasm has no option thread; takes \w+/],
    [
      "wasm --backend-options threads=many",
      /INVALID_ARGUMENT: wasm: threads is "many"; takes a whole number/,
    ],
  ])("%s is refused by the backend", async (args, message) => {
    const { code, stderr } = await shell.run(`${init} --backend ${args}`);
    expect(stderr).toMatch(message);
    expect(code).toBe(1);
  });

  it.each([
    [
      "wasm --backend-options threads",
      /--backend-options is "threads"; takes KEY=VALUE,\.\.\., each key once/,
    ],
    ["wasm --backend-options =1", /is "=1"; takes KEY=VALUE/],
    ["wasm --backend-options threads=1,threads=2", /is "threads=1,threads=2"; takes KEY=VALUE/],
    ["auto --backend-options threads=1", /are those of one backend; --backend is auto, takes its name/],
  ])("%s is no command line", async (args, message) => {
    const { code, stderr } = await shell.run(`${init} --backend ${args}`);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  it("of all backends at once are no command line", async () => {
    const { code, stderr } = await shell.run("info --backend-options threads=1");
    expect(stderr).toMatch(/--backend is all, takes its name/);
    expect(code).toBe(2);
  });
});

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

  it("is all of them for info alone", async () => {
    for (const command of [init, "verify --only capabilities"]) {
      const { code, stderr, stdout } = await shell.run(`${command} --backend all`);
      expect(stderr).toMatch(
        /^flash-moe: UNAVAILABLE: backend is all, which cannot be imported .*takes auto, cuda/,
      );
      expect([code, stdout]).toEqual([1, ""]);
    }
  });

  it("that imports what is not there is told which file wants it", async () => {
    await writeFile(shell.path("mine.mjs"), 'import "@flash-moe/cor";\n');
    const { code, stderr } = await shell.run(`${init} --backend ./mine.mjs`);
    expect(stderr).toMatch(/^flash-moe: UNAVAILABLE: .*'@flash-moe\/cor'.* imported from \S+mine\.mjs/);
    expect(code).toBe(1);
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
