import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { contribute, hostProvider } from "./contributed-backend.js";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
});
afterEach(() => shell.close());

/** Runs a command in a terminal and interrupts it as soon as the terminal shows `what`. */
async function interruptAt(what: RegExp, args: string) {
  const controller = new AbortController();
  let shown = "";
  const outcome = await shell.run(args, {
    terminalColumns: 120,
    signal: controller.signal,
    stderr: (text) => {
      shown += text;
      if (what.test(shown)) controller.abort(new Error("interrupted"));
    },
  });
  return { ...outcome, shown };
}

const large = "init --hidden 64 --intermediate 64 --experts 65536 --top-k 4 --output l.safetensors";

describe("Ctrl-C", () => {
  it.each([
    ["while the weights are made", /initialize \[/],
    ["while the file is written", /write \[/],
  ])("%s leaves no file", async (_, what) => {
    const { code, shown, stdout } = await interruptAt(what, large);
    expect(shown).toMatch(what);
    expect(shown).toMatch(/flash-moe: interrupted\n$/);
    expect(code).toBe(130);
    expect(stdout).toBe("");
    expect(await shell.files()).toEqual([]);
  });

  it("stops a verification between two cases", async () => {
    const { code, shown } = await interruptAt(/\d cases, 0 failed/, "verify --backend reference");
    expect(shown).toMatch(/flash-moe: interrupted\n$/);
    expect(code).toBe(130);
  });

  it("stops a verification, and what had failed is told", async () => {
    await contribute(shell, hostProvider({ sync: () => new Promise(() => {}) }));
    const { code, shown, stdout } = await interruptAt(
      /1 cases, 1 failed/,
      "verify --backend ./mine.mjs --timeout 1 --only capabilities/",
    );
    expect(shown).toMatch(/FAILED capabilities\/\S+\n {2}\S+ did not finish within 1000 ms\n/);
    expect(shown).toMatch(/flash-moe: interrupted\n$/);
    expect(code).toBe(130);
    expect(stdout).toBe("");
  });

  it("stops a benchmark", async () => {
    const { code } = await interruptAt(
      /preparing 65,536 experts/,
      "bench --backend reference --seconds 0.01",
    );
    expect(code).toBe(130);
  });

  it("before anything has begun does nothing", async () => {
    const { code, stderr } = await shell.run(large, { signal: AbortSignal.abort(new Error("interrupted")) });
    expect(stderr).toMatch(/flash-moe: interrupted\n$/);
    expect(code).toBe(130);
    expect(await shell.files()).toEqual([]);
  });
});

/** Back to the beginning of the line, which is emptied. */
const redraw = "\r\x1b[K";

describe("progress", () => {
  it("is drawn on a terminal, within its width, and taken away", async () => {
    const lines: string[] = [];
    const { code, stdout } = await shell.run(large, {
      terminalColumns: 60,
      stderr: (text) => lines.push(text),
    });
    expect(code).toBe(0);
    const drawn = lines
      .filter((text) => text.startsWith(redraw) && text !== redraw)
      .map((text) => text.slice(redraw.length));
    expect(new Set(drawn.map((text) => text.split(" ")[0]))).toEqual(new Set(["initialize", "write"]));
    for (const text of drawn) {
      expect(text).toMatch(/^(initialize|write) \[[= ]{24}\] \d+% /);
      expect(text.length).toBeLessThan(60);
    }
    expect(lines.at(-1)).toBe(redraw);
    expect(stdout).toMatch(/l\.safetensors: 65,536 experts/);
  });

  it("is not drawn into a pipe, nor for machines", async () => {
    const { stderr } = await shell.run(large);
    expect(stderr).toBe("backend reference on CPU, plain TypeScript (float64)\n");
    expect((await shell.run(`${large} --json`, { terminalColumns: 80 })).stderr).toBe("");
  });
});
