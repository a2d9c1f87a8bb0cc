import { type AbortSignalLike, FlashMoeError } from "@flash-moe/core";
import { type ByteSource, type ByteSourceLike, openByteSource } from "./byte-source.js";
import { headerPrefixBytes, maxHeaderBytes, type SafetensorsDType } from "./format.js";
import { quote } from "./quote.js";
import { readHeader, type TensorEntry } from "./read-header.js";
import { indexEnding, openShards } from "./sharded-file.js";

export interface TensorInfo {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** An open safetensors file: its header is read and valid, its tensors are read when asked for. */
export interface SafetensorsFile extends AsyncDisposable {
  /** For messages: a path, or what it is. */
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Bytes of a tensor (little-endian elements, row-major), by default all: to be read and not written
   * to. INVALID_ARGUMENT for a tensor that is not there or a range beyond it, DISPOSED after `close`,
   * IO_FAILED where the bytes cannot be had.
   */
  readBytes(name: string, byteOffset?: number, byteLength?: number): Promise<Uint8Array>;
  /** Harmless when repeated. */
  close(): Promise<void>;
}

/**
 * Opens a safetensors file and reads its header, strictly: whatever is wrong with it, or with the size
 * of the file, is INVALID_CHECKPOINT before any tensor is looked at. `source` is closed with the file,
 * and when opening fails. `signal` rejects with its reason.
 *
 * A path that ends in ".safetensors.index.json" opens the files that this index names, as one.
 */
export async function openSafetensors(
  source: ByteSourceLike,
  options: { signal?: AbortSignalLike } = {},
): Promise<SafetensorsFile> {
  options.signal?.throwIfAborted();
  if (typeof source === "string" && source.endsWith(indexEnding)) {
    return openShards(source, (shard) => openOne(shard, options.signal));
  }
  return openOne(source, options.signal);
}

async function openOne(
  source: ByteSourceLike,
  signal: AbortSignalLike | undefined,
): Promise<SafetensorsFile> {
  const bytes = await openByteSource(source);
  try {
    const headerLength = await readHeaderLength(bytes);
    signal?.throwIfAborted();
    const text = decodeUtf8(await bytes.read(headerPrefixBytes, headerLength), bytes.name);
    signal?.throwIfAborted();
    const dataStart = headerPrefixBytes + headerLength;
    const header = readHeader(text, bytes.size - dataStart, bytes.name);
    return new OpenFile(bytes, dataStart, header.metadata, header.tensors);
  } catch (error) {
    await bytes.close().catch(() => {});
    throw error;
  }
}

/** How files begin that are often taken for a safetensors file, and what they are. */
const otherFiles: readonly (readonly [magic: string, what: string])[] = [
  ["{", "JSON"],
  ["PK\x03\x04", "a zip archive, as torch.save writes: save_file of Python's safetensors makes one"],
  ["version ", "a pointer of Git LFS: `git lfs pull` fetches the file itself"],
];

async function readHeaderLength(bytes: ByteSource): Promise<number> {
  if (bytes.size < headerPrefixBytes) {
    throw new FlashMoeError(
      "INVALID_CHECKPOINT",
      `${bytes.name}: has ${bytes.size} bytes; a safetensors file begins with 8 bytes that give the length of its header`,
    );
  }
  const prefix = await bytes.read(0, headerPrefixBytes);
  const view = new DataView(prefix.buffer, prefix.byteOffset, headerPrefixBytes);
  const length = view.getBigUint64(0, true);
  const limit = Math.min(maxHeaderBytes, bytes.size - headerPrefixBytes);
  if (length < 2n || length > BigInt(limit)) {
    const start = String.fromCharCode(...prefix);
    const other = otherFiles.find(([magic]) => start.startsWith(magic));
    if (other !== undefined) {
      throw new FlashMoeError("INVALID_CHECKPOINT", `${bytes.name} is no safetensors file, but ${other[1]}`);
    }
    throw new FlashMoeError(
      "INVALID_CHECKPOINT",
      `${bytes.name}: the header is said to have ${length} bytes; takes 2 to ${maxHeaderBytes}, of ${bytes.size - headerPrefixBytes} in the file`,
    );
  }
  return Number(length);
}

function decodeUtf8(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FlashMoeError("INVALID_CHECKPOINT", `${name}: the header is not UTF-8`, { cause });
  }
}

class OpenFile implements SafetensorsFile {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #source: ByteSource;
  readonly #dataStart: number;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  #closed: Promise<void> | undefined;

  constructor(
    source: ByteSource,
    dataStart: number,
    metadata: ReadonlyMap<string, string>,
    entries: ReadonlyMap<string, TensorEntry>,
  ) {
    this.name = source.name;
    this.metadata = metadata;
    this.tensors = entries;
    this.#source = source;
    this.#dataStart = dataStart;
    this.#entries = entries;
  }

  async readBytes(name: string, byteOffset = 0, byteLength?: number): Promise<Uint8Array> {
    if (this.#closed) throw new FlashMoeError("DISPOSED", `${this.name} has been closed`);
    const entry = this.#entries.get(name);
    if (entry === undefined) {
      throw new FlashMoeError("INVALID_ARGUMENT", `${this.name} has no tensor ${quote(name)}`);
    }
    const length = byteLength ?? entry.byteLength - byteOffset;
    const valid = Number.isSafeInteger(byteOffset) && Number.isSafeInteger(length);
    if (!valid || byteOffset < 0 || length < 0 || byteOffset + length > entry.byteLength) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `byteOffset is ${byteOffset} and byteLength ${length}; tensor ${quote(name)} has ${entry.byteLength} bytes`,
      );
    }
    return this.#source.read(this.#dataStart + entry.begin + byteOffset, length);
  }

  close(): Promise<void> {
    this.#closed ??= this.#source.close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
