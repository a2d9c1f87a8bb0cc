import { FlashMoeError } from "@flash-moe/core";

export type FileSystem = typeof import("node:fs/promises");

/** Node's file system, loaded on first use: the rest of this folder runs in a browser. UNSUPPORTED without one. */
export async function nodeFileSystem(path: string): Promise<FileSystem> {
  try {
    return await import("node:fs/promises");
  } catch (cause) {
    throw new FlashMoeError(
      "UNSUPPORTED",
      `there is no file system here to look for ${path} in; a Blob or a Uint8Array works everywhere`,
      { cause },
    );
  }
}

/** IO_FAILED that names the path. */
export function ioError(what: string, path: string, cause: unknown): FlashMoeError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new FlashMoeError("IO_FAILED", `cannot ${what} ${path}: ${detail}`, { cause });
}
