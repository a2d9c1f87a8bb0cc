import { afterAll, beforeAll, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeAll(async () => {
  shell = await Shell.open();
});
afterAll(() => shell.close());

interface Info {
  readonly auto: string | null;
  readonly backends: readonly {
    readonly name: string;
    readonly available: boolean;
    readonly reason?: string;
    readonly device?: string;
    readonly dtypes?: Record<string, string[]>;
    readonly memory?: { limitBytes: number | null };
    readonly maxBufferBytes?: number;
    readonly ops?: string[];
  }[];
}

it("tells every backend, and why one is not there", async () => {
  const info = (await shell.json("info")) as unknown as Info;
  expect(info.backends.map(({ name }) => name)).toEqual(["cuda", "webgpu", "wasm", "reference"]);
  for (const backend of info.backends) {
    if (!backend.available) expect(backend.reason).toMatch(/\w+ \w+/);
  }
  const reference = info.backends.find(({ name }) => name === "reference");
  expect(reference).toMatchObject({
    available: true,
    device: "CPU, plain TypeScript (float64)",
    dtypes: { f32: ["storage", "arithmetic"], f16: ["storage"], bf16: ["storage"] },
  });
  expect(reference?.ops).toHaveLength(10);
  expect(reference?.memory?.limitBytes).toBeGreaterThan(0);
  expect(info.auto).not.toBeNull();
});

it("says the same to people", async () => {
  const { code, stdout, stderr } = await shell.run("info");
  expect(code).toBe(0);
  expect(stderr).toBe("");
  for (const name of ["cuda", "webgpu", "wasm"]) {
    expect(stdout).toMatch(new RegExp(`^${name} +(available$|not available: \\w)`, "m"));
  }
  expect(stdout).toMatch(/^reference +available$/m);
  expect(stdout).toMatch(/^ +memory +0 B in use, of [\d.,]+ [KMGT]iB$/m);
  expect(stdout).toMatch(/^--backend auto takes \w+$/m);
});

it("does not fail because a backend does", async () => {
  const info = (await shell.json("info --backend ./none.mjs")) as unknown as Info;
  expect(info.auto).toBeNull();
  expect(info.backends).toEqual([
    { name: "./none.mjs", available: false, reason: expect.stringMatching(/none\.mjs.*cannot be imported/) },
  ]);
});

it("tells one backend alone", async () => {
  const info = (await shell.json("info --backend reference")) as unknown as Info;
  expect(info.backends.map(({ name, available }) => [name, available])).toEqual([["reference", true]]);
});
