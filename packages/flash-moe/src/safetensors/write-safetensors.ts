import { FlashMoeError, type LongJobOptions } from "@flash-moe/core";
import { quote } from "./quote.js";
import { writeBeside } from "./write-beside.js";
import { type FileLayout, layOutFile, type SafetensorsEntry } from "./write-header.js";

export interface WriteSafetensorsOptions extends LongJobOptions {
  /** Strings for the header. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes a safetensors file, one chunk in memory at a time. The file is there whole or not at all.
 * INVALID_ARGUMENT for entries that make no file (see `layOutFile`) or whose chunks are not as long as
 * their shape, IO_FAILED with the path; what a chunk's maker throws is thrown.
 */
export async function writeSafetensors(
  path: string,
  entries: readonly SafetensorsEntry[],
  options: WriteSafetensorsOptions = {},
): Promise<void> {
  const layout = layOutFile(entries, options.metadata ?? {});
  await writeBeside(path, (append) => writeLayout(layout, append, options), options.signal);
}

/** The same file as bytes in memory. */
export async function encodeSafetensors(
  entries: readonly SafetensorsEntry[],
  options: WriteSafetensorsOptions = {},
): Promise<Uint8Array> {
  const layout = layOutFile(entries, options.metadata ?? {});
  const size = layout.header.length + layout.dataLength;
  const file = allocate(size);
  let offset = 0;
  await writeLayout(
    layout,
    async (bytes) => {
      file.set(bytes, offset);
      offset += bytes.length;
    },
    options,
  );
  return file;
}

async function writeLayout(
  layout: FileLayout,
  append: (bytes: Uint8Array) => Promise<void>,
  { signal, onProgress }: WriteSafetensorsOptions,
): Promise<void> {
  signal?.throwIfAborted();
  await append(layout.header);
  let loaded = 0;
  for (const entry of layout.entries) {
    let length = 0;
    for await (const chunk of entry.chunks()) {
      signal?.throwIfAborted();
      length += chunk.length;
      if (length > entry.byteLength) break;
      await append(chunk);
      loaded += chunk.length;
      onProgress?.({ phase: "write", name: entry.name, loaded, total: layout.dataLength });
    }
    if (length !== entry.byteLength) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `chunks of ${quote(entry.name)} gave ${length} bytes; ${entry.dtype} [${entry.shape}] takes ${entry.byteLength}`,
      );
    }
  }
  signal?.throwIfAborted();
}

function allocate(size: number): Uint8Array {
  try {
    return new Uint8Array(size);
  } catch (cause) {
    throw new FlashMoeError("OUT_OF_MEMORY", `a file of ${size} bytes does not fit into memory`, { cause });
  }
}
