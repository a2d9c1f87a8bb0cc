import { FlashMoeError } from "@flash-moe/core";

/**
 * What is used of Node. Asked of the process, not imported: the rest of this folder runs in a browser, and a bundler for
 * one fails on the names of Node's modules, or warns.
 */
export interface NodeFiles {
  readonly fs: typeof import("node:fs/promises");
  readonly path: typeof import("node:path");
}

/** Node's file system. UNSUPPORTED without one; `path` is for the message. */
export function nodeFiles(path: string): NodeFiles {
  // A page may have a shim of `process` without it.
  const builtin: typeof process.getBuiltinModule | undefined = globalThis.process?.getBuiltinModule;
  const fs = builtin?.("node:fs/promises");
  const paths = builtin?.("node:path");
  if (fs === undefined || paths === undefined) {
    throw new FlashMoeError(
      "UNSUPPORTED",
      `there is no file system here to look for ${path} in; a Blob or a Uint8Array works everywhere`,
    );
  }
  return { fs, path: paths };
}

/** IO_FAILED that names the path. */
export function ioError(what: string, path: string, cause: unknown): FlashMoeError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new FlashMoeError("IO_FAILED", `cannot ${what} ${path}: ${detail}`, { cause });
}
