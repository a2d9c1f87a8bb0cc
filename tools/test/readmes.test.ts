import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as core from "@flash-moe/core";
import * as ffn from "@flash-moe/ffn";
import * as reference from "@flash-moe/reference";
import * as router from "@flash-moe/router";
import * as flashMoe from "flash-moe";
import { expect, it } from "vitest";
import { runReadmeExample } from "./helpers/readme-example.js";

const modules = {
  "@flash-moe/core": core,
  "@flash-moe/ffn": ffn,
  "@flash-moe/reference": reference,
  "@flash-moe/router": router,
  "flash-moe": flashMoe,
};

/** What the example of the README in `folder` prints, a list for each call. */
function printed(folder: string): Promise<unknown[][]> {
  return runReadmeExample(new URL(`../../${folder}/README.md`, import.meta.url), modules);
}

it("the README", async () => {
  expect(await printed(".")).toEqual([[512], [6], ["reference"]]);
});

it("the README of core", async () => {
  expect(await printed("packages/core")).toEqual([
    [Float32Array.of(1, 5, 4, 11)],
    ["INVALID_ARGUMENT", "linear: b has 6 elements; takes 9"],
  ]);
});

it("the README of router", async () => {
  const [[ids], gradients, [used]] = (await printed("packages/router")) as [
    [Int32Array],
    unknown[],
    [number],
  ];
  expect(ids).toHaveLength(12);
  expect(gradients).toEqual([[3, 16], ["router_gate.weight"]]);
  expect(used).toBe(new Set(ids).size);
});

it("the README of ffn", async () => {
  expect(await printed("packages/ffn")).toEqual([[[2, 16]], [Int32Array.of(7, 41, 99_999)]]);
});

it("the README of reference", async () => {
  const [[ids], [weights], [memory]] = (await printed("packages/reference")) as [
    [Int32Array],
    [Float32Array],
    [core.MemoryReport],
  ];
  expect([...ids]).toEqual([19, 18, 14, 2, 3, 0]);
  for (const token of [0, 1]) {
    const sum = weights.subarray(3 * token, 3 * token + 3).reduce((total, weight) => total + weight);
    expect(sum).toBeCloseTo(1, 6);
  }
  expect(memory.liveBytes).toBe(4 * (18 + 6 + 6));
});

it("the README of flash-moe, with its file in a folder of its own", async () => {
  const folder = await mkdtemp(join(tmpdir(), "flash-moe-readme-"));
  try {
    const file = join(folder, "layer.safetensors");
    const backend = await flashMoe.openBackend("reference");
    const config = { hiddenSize: 64, intermediateSize: 8, keysX: 16, keysY: 16, topK: 4 };
    await (await flashMoe.FlashMoE.create(backend, config)).save(file);
    await backend.dispose();
    const before = await readFile(file);

    const readme = await readFile(new URL("../../packages/flash-moe/README.md", import.meta.url), "utf8");
    const copy = join(folder, "README.md");
    await writeFile(copy, readme.replaceAll('"layer.safetensors"', JSON.stringify(file)));
    expect(await runReadmeExample(pathToFileURL(copy), modules)).toEqual([[512], ["reference"]]);
    expect((await readFile(file)).equals(before)).toBe(false);
  } finally {
    await rm(folder, { recursive: true });
  }
});
