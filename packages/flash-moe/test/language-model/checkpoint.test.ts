import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, expect, it } from "vitest";
import {
  encodeLanguageModel,
  loadLanguageModel,
  saveLanguageModel,
} from "../../src/language-model/checkpoint.js";
import { contextIds } from "../../src/language-model/contexts.js";
import { FlashMoE } from "../../src/layer/flash-moe.js";
import { train } from "../../src/training/train.js";
import { tinyModel, tinyText, weightsOf } from "./tiny-model.js";

let backend: Backend;
let folder: string;
let path: string;
beforeEach(async () => {
  backend = await reference.open();
  folder = mkdtempSync(join(tmpdir(), "flash-moe-"));
  path = join(folder, "model.safetensors");
});
afterEach(async () => {
  await backend.dispose();
  rmSync(folder, { recursive: true });
});

it("a trained model comes back with the same bits, and what is known of its training", async () => {
  const model = await tinyModel(backend);
  for await (const _ of train(model, tinyText, { steps: 3, batchSize: 16 }));
  await saveLanguageModel(path, model, { training: { seed: 1, steps: 3 } });
  expect(readdirSync(folder)).toEqual(["model.safetensors"]);
  const { model: loaded, training } = await loadLanguageModel(path, { backend });
  expect(training).toEqual({ seed: 1, steps: 3 });
  expect(loaded.config).toEqual(model.config);
  expect(await weightsOf(loaded)).toEqual(await weightsOf(model));
  const ids = contextIds(tinyText, [5, 30, 77], 3);
  expect(await loaded.forward(ids).readRaw()).toEqual(await model.forward(ids).readRaw());
});

it("the same model always makes the same file", async () => {
  await saveLanguageModel(path, await tinyModel(backend));
  const again = join(folder, "again.safetensors");
  await saveLanguageModel(again, await tinyModel(backend));
  expect(readFileSync(again).equals(readFileSync(path))).toBe(true);
});

it("encoded in memory it is the same file, which loads from its bytes", async () => {
  const model = await tinyModel(backend);
  await saveLanguageModel(path, model, { training: { seed: 1, steps: 0 } });
  const bytes = await encodeLanguageModel(model, { training: { seed: 1, steps: 0 } });
  expect(readFileSync(path).equals(bytes)).toBe(true);
  const { model: loaded } = await loadLanguageModel(bytes, { backend });
  expect(await weightsOf(loaded)).toEqual(await weightsOf(model));
});

it("its layer is a checkpoint of its own, under a prefix", async () => {
  const model = await tinyModel(backend);
  await saveLanguageModel(path, model);
  const layer = await FlashMoE.load(path, { backend, prefix: "mlp." });
  expect(layer.config).toEqual(model.layer.config);
  const x = backend.upload(
    Float32Array.from({ length: 32 }, (_, i) => Math.sin(i)),
    [2, 16],
  );
  expect(await layer.forward(x).readRaw()).toEqual(await model.layer.forward(x).readRaw());
});

it("a layer's checkpoint is no language model", async () => {
  await (await tinyModel(backend)).layer.save(path, { prefix: "mlp." });
  await expect(loadLanguageModel(path, { backend })).rejects.toMatchObject({
    code: "INVALID_CHECKPOINT",
    message: expect.stringContaining("language_model"),
  });
});

/** The file of a tiny model with one part of its header replaced by another of the same length. */
async function changedFile(from: string, to: string): Promise<Uint8Array> {
  await saveLanguageModel(path, await tinyModel(backend), { training: { seed: 1, steps: 3 } });
  const bytes = readFileSync(path);
  const at = bytes.indexOf(from);
  if (at < 0 || from.length !== to.length) throw new Error(`cannot replace ${from}`);
  bytes.write(to, at);
  return bytes;
}

it.each([
  { what: "another window", from: '\\"window\\":3', to: '\\"window\\":4', says: "takes [1024,16]" },
  { what: "no window", from: '\\"window\\":3', to: '\\"windoW\\":3', says: "window from 1" },
  { what: "a window of 0", from: '\\"window\\":3', to: '\\"window\\":0', says: "window from 1" },
  { what: "no JSON", from: '{\\"window\\":3', to: '[\\"window\\":3', says: "takes a JSON object" },
  { what: "steps that are none", from: '\\"steps\\":3', to: '\\"steps\\":-', says: "takes a JSON object" },
  { what: "training without a seed", from: '\\"seed\\"', to: '\\"sEEd\\"', says: "seed and steps" },
  { what: "an unknown tensor", from: '"head.weight"', to: '"head.wEight"', says: "head.weight" },
  { what: "transposed weights", from: '"shape":[256,16]', to: '"shape":[16,256]', says: "takes [256,16]" },
])("refuses $what, leaving nothing on the device", async ({ from, to, says }) => {
  const bytes = await changedFile(from, to);
  const live = backend.memory().liveBytes;
  await expect(loadLanguageModel(bytes, { backend })).rejects.toMatchObject({
    code: "INVALID_CHECKPOINT",
    message: expect.stringContaining(says),
  });
  expect(backend.memory().liveBytes).toBe(live);
});

it("leaves nothing on a device that is too small", async () => {
  const model = await tinyModel(backend);
  await saveLanguageModel(path, model);
  const bytes = model.slots().reduce((sum, { tensor }) => sum + tensor.buffer.byteLength, 0);
  const cramped = await reference.open({ memoryLimitBytes: bytes - 4 });
  await expect(loadLanguageModel(path, { backend: cramped })).rejects.toMatchObject({
    code: "OUT_OF_MEMORY",
  });
  expect(cramped.memory().liveBytes).toBe(0);
  await cramped.dispose();
});
