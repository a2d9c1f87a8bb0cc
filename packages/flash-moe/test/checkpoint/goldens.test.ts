import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { encodeLayerCheckpoint, readLayerCheckpoint } from "../../src/checkpoint/index.js";
import { openSafetensors, type SafetensorsFile } from "../../src/safetensors/index.js";
import { Golden, goldenConfig, layerGoldens } from "../helpers/goldens.js";
import { hostBackend } from "../safetensors/host-backend.js";

const folder = fileURLToPath(new URL("../../../../tools/goldens/data/", import.meta.url));

/** The checkpoint in a golden file: what is neither an input of the layer nor a result. */
function checkpointIn(file: SafetensorsFile): SafetensorsFile {
  const tensors = [...file.tensors].filter(([name]) => !/^(expected\.|hidden_states$|grad_)/.test(name));
  return {
    name: file.name,
    metadata: file.metadata,
    tensors: new Map(tensors),
    readBytes: (name, offset, length) => file.readBytes(name, offset, length),
    close: () => file.close(),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

describe("checkpoints made by PyTorch", () => {
  for (const name of layerGoldens) {
    test(`${name} is read, and written with the same bits under the same names`, async () => {
      await using opened = await openSafetensors(folder + name);
      const file = checkpointIn(opened);
      const checkpoint = await readLayerCheckpoint(file);
      const { omni, dtype, ...config } = goldenConfig(await Golden.read(name));
      expect(checkpoint).toMatchObject({ config, dtype, family: omni ? "omni" : "flash" });

      const backend = hostBackend();
      const tensors = new Map(
        await Promise.all(
          checkpoint.tensorNames.map(async (key) => [key, await checkpoint.upload(key, backend)] as const),
        ),
      );
      const { family, batchesTracked } = checkpoint;
      const bytes = await encodeLayerCheckpoint({ config, tensors, family, batchesTracked });
      await using written = await openSafetensors(bytes);
      expect([...written.tensors.keys()].sort()).toEqual([...file.tensors.keys()].sort());
      for (const [key, { dtype: stored, shape }] of file.tensors) {
        expect(written.tensors.get(key)).toMatchObject({ dtype: stored, shape });
        expect(new Uint8Array(await written.readBytes(key)), key).toEqual(await file.readBytes(key));
      }
      await using again = await readLayerCheckpoint(bytes);
      expect(again.config).toEqual(config);
    });
  }
});
