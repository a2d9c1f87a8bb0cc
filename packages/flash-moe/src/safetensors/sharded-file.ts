import { FlashMoeError } from "@flash-moe/core";
import { openByteSource } from "./byte-source.js";
import { maxHeaderBytes } from "./format.js";
import { quote } from "./quote.js";
import type { SafetensorsFile, TensorInfo } from "./safetensors-file.js";

/** How the name of an index ends: JSON that says which of several files each tensor is in, as Hugging Face writes it. */
export const indexEnding = ".safetensors.index.json";

/**
 * The files that an index names, which lie beside it, as one file without metadata. `open` opens one of them.
 * INVALID_CHECKPOINT for an index that is malformed, names a file in another folder, or a tensor that is not there.
 */
export async function openShards(
  path: string,
  open: (path: string) => Promise<SafetensorsFile>,
): Promise<SafetensorsFile> {
  const shardNames = await readIndex(path);
  const folder = path.slice(0, Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
  const shards = new Map<string, SafetensorsFile>();
  const close = async (): Promise<void> => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    const tensors = new Map<string, TensorInfo>();
    for (const [name, shardName] of shardNames) {
      const shard = shards.get(shardName) ?? (await open(`${folder}${shardName}`));
      shards.set(shardName, shard);
      const info = shard.tensors.get(name);
      if (info === undefined) throw invalid(path, `${quote(name)} is not in ${quote(shardName)}`);
      tensors.set(name, info);
    }
    return {
      name: path,
      metadata: new Map(),
      tensors,
      async readBytes(name, byteOffset, byteLength) {
        const shard = shards.get(shardNames.get(name) ?? "");
        if (shard === undefined) {
          throw new FlashMoeError("INVALID_ARGUMENT", `${path} has no tensor ${quote(name)}`);
        }
        return shard.readBytes(name, byteOffset, byteLength);
      },
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
}

/** Which file each tensor is in. */
async function readIndex(path: string): Promise<Map<string, string>> {
  const source = await openByteSource(path);
  try {
    if (source.size > maxHeaderBytes) {
      throw invalid(path, `has ${source.size} bytes; takes an index of up to ${maxHeaderBytes}`);
    }
    const map = parseIndex(path, await source.read(0, source.size)).weight_map;
    if (typeof map !== "object" || map === null || Array.isArray(map)) {
      throw invalid(path, "has no object weight_map; takes the name of a file for each tensor");
    }
    for (const [name, shard] of Object.entries(map)) {
      if (typeof shard === "string" && /^[^/\\]+\.safetensors$/.test(shard)) continue;
      throw invalid(
        path,
        `${quote(name)} is in ${quote(String(shard))}; takes the name of a .safetensors file beside the index`,
      );
    }
    return new Map(Object.entries(map));
  } finally {
    await source.close();
  }
}

function parseIndex(path: string, bytes: Uint8Array): { readonly weight_map?: unknown } {
  try {
    return Object(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch (cause) {
    throw invalid(path, "is no JSON", cause);
  }
}

function invalid(path: string, what: string, cause?: unknown): FlashMoeError {
  return new FlashMoeError("INVALID_CHECKPOINT", `${path}: ${what}`, { cause });
}
