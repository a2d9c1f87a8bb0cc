import { FlashMoeError } from "@flash-moe/core";
import { ioError, nodeFiles } from "./node-fs.js";

/** Bytes that can be read in pieces. */
export interface ByteSource {
  /** For messages: a path, or what it is. */
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /**
   * Exactly `length` bytes from `offset` on, to be read and not written to: they may be the source's own.
   * IO_FAILED where they cannot be had.
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Harmless when repeated. */
  close(): Promise<void>;
}

/** The part of a `Blob` (or a browser's `File`) that is used here. */
export interface BlobLike {
  readonly size: number;
  slice(start: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> };
}

/** Where bytes may come from: the path of a file, or a Blob, bytes in memory, or a source of one's own. */
export type ByteSourceLike = string | BlobLike | Uint8Array | ArrayBuffer | ByteSource;

/** IO_FAILED for a file that cannot be opened, INVALID_ARGUMENT for anything that is no source. */
export async function openByteSource(from: ByteSourceLike): Promise<ByteSource> {
  if (typeof from === "string") return openFile(from);
  if (from instanceof Uint8Array) return exactSource(memorySource(from));
  if (from instanceof ArrayBuffer) return exactSource(memorySource(new Uint8Array(from)));
  if (typeof from === "object" && from !== null) {
    if ("read" in from && typeof from.read === "function" && typeof from.close === "function") {
      return exactSource(from);
    }
    if ("slice" in from && typeof from.slice === "function" && typeof from.size === "number") {
      return blobSource(from);
    }
  }
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `source is ${from === null ? "null" : typeof from}; takes a path, a Blob, a Uint8Array, an ArrayBuffer or a ByteSource`,
  );
}

/** The most that one call of the operating system is asked for. */
const readLimit = 2 ** 30;

async function openFile(path: string): Promise<ByteSource> {
  const { fs } = nodeFiles("read", path);
  let size: number;
  let handle: Awaited<ReturnType<typeof fs.open>>;
  try {
    // Asked before opening: opening a pipe would wait for its other end.
    const found = await fs.stat(path);
    if (!found.isFile()) throw new Error("it is not a regular file");
    size = found.size;
    handle = await fs.open(path, "r");
  } catch (cause) {
    throw ioError("read", path, cause);
  }
  return {
    name: path,
    size,
    async read(offset, length) {
      try {
        const bytes = new Uint8Array(length);
        let filled = 0;
        while (filled < length) {
          const wanted = Math.min(length - filled, readLimit);
          const { bytesRead } = await handle.read(bytes, filled, wanted, offset + filled);
          if (bytesRead === 0) throw new Error(`it ends at byte ${offset + filled}, shorter than it was`);
          filled += bytesRead;
        }
        return bytes;
      } catch (cause) {
        throw ioError("read", path, cause);
      }
    },
    close: () => handle.close(),
  };
}

/** A source of somebody else's, or whose memory is: what it gives is looked at. */
function exactSource(source: ByteSource): ByteSource {
  const { name, size } = source;
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new FlashMoeError("INVALID_ARGUMENT", `size of source is ${String(size)}; takes a number of bytes`);
  }
  return {
    name,
    size,
    async read(offset, length) {
      const bytes: unknown = await source.read(offset, length);
      if (bytes instanceof Uint8Array && bytes.length === length) return bytes;
      const found = bytes instanceof Uint8Array ? `${bytes.length} bytes` : `a value that is no Uint8Array`;
      throw ioError("read", name, `the source gave ${found} instead of ${length} bytes`);
    },
    close: () => source.close(),
  };
}

function memorySource(bytes: Uint8Array): ByteSource {
  const name = "(bytes in memory)";
  return {
    name,
    size: bytes.length,
    async read(offset, length) {
      try {
        return bytes.subarray(offset, offset + length);
      } catch (cause) {
        throw ioError("read", name, cause); // the memory is somebody else's by now
      }
    },
    close: async () => {},
  };
}

function blobSource(blob: BlobLike): ByteSource {
  const name = "name" in blob && typeof blob.name === "string" ? blob.name : "(blob)";
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      try {
        const bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
        if (bytes.length !== length) throw new Error(`it gave ${bytes.length} bytes of ${length}`);
        return bytes;
      } catch (cause) {
        throw ioError("read", name, cause);
      }
    },
    close: async () => {},
  };
}
