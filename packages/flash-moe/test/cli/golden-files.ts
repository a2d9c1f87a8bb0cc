import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import {
  openSafetensors,
  type SafetensorsEntry,
  type SafetensorsFile,
  type WritableDType,
  writeSafetensors,
} from "../../src/safetensors/index.js";
import type { Shell } from "./helpers.js";

const folder = fileURLToPath(new URL("../../../../tools/goldens/data/", import.meta.url));

/**
 * One of PyTorch's layers as the files that `flash-moe run` takes: checkpoint.safetensors, config.json,
 * input.safetensors and grad.safetensors. The names of the layer get a prefix.
 */
export async function writeGoldenFiles(shell: Shell, name: string, prefix = ""): Promise<void> {
  const golden = await openSafetensors(folder + name);
  try {
    const ours = /^(expected\.|hidden_states$|grad_)/;
    const save = async (file: string, rename: (name: string) => string | undefined): Promise<void> => {
      const entries = [...golden.tensors.keys()].flatMap((tensor) => {
        const written = rename(tensor);
        return written === undefined ? [] : [copyEntry(golden, tensor, written)];
      });
      await writeSafetensors(shell.path(file), entries);
    };
    await save("checkpoint.safetensors", (tensor) => (ours.test(tensor) ? undefined : prefix + tensor));
    await save("input.safetensors", (tensor) => (tensor === "hidden_states" ? tensor : undefined));
    await save("grad.safetensors", (tensor) => (tensor === "grad_output" ? "hidden_states" : undefined));
    await writeFile(shell.path("config.json"), golden.metadata.get("config") ?? "");
  } finally {
    await golden.close();
  }
}

function copyEntry(file: SafetensorsFile, from: string, to: string): SafetensorsEntry {
  const info = file.tensors.get(from);
  if (info === undefined) throw new Error(`there is no ${from}`);
  return {
    name: to,
    dtype: info.dtype as WritableDType,
    shape: info.shape,
    async *chunks() {
      yield await file.readBytes(from);
    },
  };
}
