import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Backend } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FlashMoE } from "../../src/layer/flash-moe.js";

const options = { hiddenSize: 8, intermediateSize: 12, keysX: 3, keysY: 5, topK: 4 } as const;

let backend: Backend;
let folder: string;
beforeEach(async () => {
  backend = await reference.open();
  folder = mkdtempSync(join(tmpdir(), "flash-moe-"));
});
afterEach(async () => {
  await backend.dispose();
  rmSync(folder, { recursive: true });
});

it.each([
  { norm: "hidden", dtype: "f32" },
  { norm: "logits", dtype: "f16" },
  { norm: "none", dtype: "bf16" },
] as const)("a layer with norm $norm in $dtype comes back with the same bits", async ({ norm, dtype }) => {
  const layer = await FlashMoE.create(backend, { ...options, norm, activation: "gelu" }, { dtype, seed: 2 });
  const x = backend.upload(
    Float32Array.from({ length: 48 }, (_, i) => Math.sin(i)),
    [6, 8],
    dtype,
  );
  layer.record(x).dispose();
  const expected = await layer.forward(x).readRaw();
  const path = join(folder, "layer.safetensors");
  await layer.save(path, { prefix: "model.layers.0.mlp." });
  expect(readdirSync(folder)).toEqual(["layer.safetensors"]);
  const loaded = await FlashMoE.load(path, { backend, prefix: "model.layers.0.mlp." });
  expect(loaded.config).toEqual(layer.config);
  expect(loaded.dtype).toBe(dtype);
  expect(loaded.router.batchesTracked).toBe(layer.router.batchesTracked);
  expect(await loaded.forward(x).readRaw()).toEqual(expected);
});

it("a layer that does not fit leaves nothing on the device", async () => {
  const path = join(folder, "layer.safetensors");
  const layer = await FlashMoE.create(backend, options);
  await layer.save(path);
  const bytes = layer.slots().reduce((sum, slot) => sum + slot.tensor.buffer.byteLength, 0);
  const cramped = await reference.open({ memoryLimitBytes: bytes - 4 });
  await expect(FlashMoE.load(path, { backend: cramped })).rejects.toMatchObject({ code: "OUT_OF_MEMORY" });
  expect(cramped.memory().liveBytes).toBe(0);
  await cramped.dispose();
});

it("comes back by the prefix that it was saved with, with its last dot or without", async () => {
  const layer = await FlashMoE.create(backend, options);
  const path = join(folder, "layer.safetensors");
  for (const saved of ["mlp", "mlp."]) {
    await layer.save(path, { prefix: saved });
    for (const prefix of ["mlp", "mlp."]) (await FlashMoE.load(path, { backend, prefix })).dispose();
  }
  const prefix = 5 as never;
  await expect(layer.save(path, { prefix })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  await expect(FlashMoE.load(path, { backend, prefix })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
});

it("loads onto a backend", async () => {
  const layer = await FlashMoE.create(backend, options);
  const path = join(folder, "layer.safetensors");
  await layer.save(path);
  await expect(FlashMoE.load(path, {} as never)).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    message: expect.stringContaining("backend is undefined"),
  });
});
