import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reference } from "@flash-moe/reference";
import {
  deviceEntry,
  FlashMoE,
  openSafetensors,
  readLayerCheckpoint,
  uploadFromFile,
  writeLayerCheckpoint,
} from "flash-moe";
import { expect, it } from "vitest";

it("keeps the tensors of a model of one's own in the layer's file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "flash-moe-own-"));
  const path = join(folder, "model.safetensors");
  const prefix = "mlp.";
  const backend = await reference.open();
  try {
    const config = { hiddenSize: 6, intermediateSize: 5, keysX: 4, keysY: 3, topK: 2 };
    const layer = await FlashMoE.create(backend, config, { seed: 1 });
    const embedding = backend.upload(Float32Array.from({ length: 12 }, Math.sin), [2, 6]);
    const entries = [deviceEntry("embedding", embedding)];
    await writeLayerCheckpoint(path, { ...layer.contents(), prefix }, { entries });

    await using file = await openSafetensors(path);
    const read = await uploadFromFile(file, "embedding", backend);
    const checkpoint = await readLayerCheckpoint(file, { prefix });
    const again = await FlashMoE.fromCheckpoint(checkpoint, backend);
    expect(read.shape).toEqual([2, 6]);
    expect(await read.read()).toEqual(await embedding.read());
    expect(again.config).toEqual(layer.config);
    const bitsOf = (of: FlashMoE) => Promise.all(of.slots().map(({ tensor }) => tensor.readRaw()));
    expect(await bitsOf(again)).toEqual(await bitsOf(layer));
  } finally {
    await backend.dispose();
    await rm(folder, { recursive: true });
  }
});
