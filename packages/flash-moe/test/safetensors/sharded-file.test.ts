import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reference } from "@flash-moe/reference";
import { FlashMoE } from "flash-moe";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { deviceEntry, hostEntry, openSafetensors, writeSafetensors } from "../../src/safetensors/index.js";
import { expectError } from "./raw-file.js";

let folder: string;
let index: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "flash-moe-shards-"));
  index = join(folder, "model.safetensors.index.json");
  await writeSafetensors(join(folder, "1.safetensors"), [hostEntry("a", "F32", [2], Float32Array.of(1, 2))]);
  await writeSafetensors(join(folder, "2.safetensors"), [hostEntry("b", "F32", [1], Float32Array.of(3))]);
});
afterAll(() => rm(folder, { recursive: true }));

const write = (value: unknown): Promise<void> =>
  writeFile(index, typeof value === "string" ? value : JSON.stringify(value));

test("the files of an index are read as one", async () => {
  await write({ metadata: { total_size: 12 }, weight_map: { b: "2.safetensors", a: "1.safetensors" } });
  const file = await openSafetensors(index);
  expect([...file.tensors.keys()]).toEqual(["b", "a"]);
  expect(file.tensors.get("a")).toMatchObject({ dtype: "F32", shape: [2], byteLength: 8 });
  expect(new Float32Array((await file.readBytes("b")).slice().buffer)).toEqual(Float32Array.of(3));
  expect(new Float32Array((await file.readBytes("a", 4, 4)).slice().buffer)).toEqual(Float32Array.of(2));
  await expectError(file.readBytes("c"), "INVALID_ARGUMENT", '"c"');
  await file.close();
  await expectError(file.readBytes("a"), "DISPOSED");
});

describe("an index is INVALID_CHECKPOINT", () => {
  test.each([
    ["that is no JSON", "{", "no JSON"],
    ["that is null", "null", "weight_map"],
    ["whose map is a list", { weight_map: ["a"] }, "weight_map"],
    ["that names a file elsewhere", { weight_map: { a: "../1.safetensors" } }, '"../1.safetensors"'],
    ["that names itself", { weight_map: { a: "model.safetensors.index.json" } }, "index.json"],
    ["that names no file", { weight_map: { a: 1 } }, '"1"'],
    ["that names a tensor that is not there", { weight_map: { b: "1.safetensors" } }, '"b" is not in'],
  ])("%s", async (_, value, message) => {
    await write(value);
    await expectError(openSafetensors(index), "INVALID_CHECKPOINT", message);
  });

  test("but IO_FAILED where one of its files is missing", async () => {
    await write({ weight_map: { a: "1.safetensors", b: "3.safetensors" } });
    await expectError(openSafetensors(index), "IO_FAILED", "3.safetensors");
  });
});

test("a layer is loaded out of several files, its configuration out of config.json beside them", async () => {
  const config = { hiddenSize: 6, intermediateSize: 5, keysX: 4, keysY: 4, topK: 2 };
  const backend = await reference.open();
  const layer = await FlashMoE.create(backend, config, { seed: 1 });
  const entries = layer.slots().map(({ name, tensor }) => deviceEntry(`mlp.${name}`, tensor));
  const weightMap: Record<string, string> = {};
  for (const [n, entry] of entries.entries()) {
    weightMap[entry.name] = `layer-${n % 2}.safetensors`;
  }
  for (const n of [0, 1]) {
    await writeSafetensors(
      join(folder, `layer-${n}.safetensors`),
      entries.filter((_, at) => at % 2 === n),
    );
  }
  await write({ weight_map: weightMap });
  await writeFile(join(folder, "config.json"), JSON.stringify({ num_experts_per_tok: 2 }));
  const loaded = await FlashMoE.load(index, { backend, prefix: "mlp" });
  expect(loaded.config).toEqual(layer.config);
  const bitsOf = (of: FlashMoE) => Promise.all(of.slots().map(({ tensor }) => tensor.readRaw()));
  expect(await bitsOf(loaded)).toEqual(await bitsOf(layer));
  await backend.dispose();
});
