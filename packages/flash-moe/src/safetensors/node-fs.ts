import { FlashMoeError } from "@flash-moe/core";

/**
 * What is used of Node. Asked of the process, not imported: the rest of this folder runs in a browser, and a bundler for
 * one fails on the names of Node's modules, or warns.
 */
export interface NodeFiles {
  readonly fs: typeof import("node:fs/promises");
  readonly path: typeof import("node:path");
}

/** Without a file system: what to do instead. */
const insteadOf = {
  read: "a Blob or a Uint8Array works everywhere",
  write:
    "encodeLayerCheckpoint, encodeLanguageModel, AdamW's encode and encodeSafetensors give the file as bytes",
};

/** Node's file system. UNSUPPORTED without one; what is to be done to `path` is for the message. */
export function nodeFiles(what: "read" | "write", path: string): NodeFiles {
  // A page may have a shim of `process` without it.
  const builtin: typeof process.getBuiltinModule | undefined = globalThis.process?.getBuiltinModule;
  const fs = builtin?.("node:fs/promises");
  const paths = builtin?.("node:path");
  if (fs === undefined || paths === undefined) {
    throw new FlashMoeError(
      "UNSUPPORTED",
      `there is no file system here to ${what} ${path}; ${insteadOf[what]}`,
    );
  }
  return { fs, path: paths };
}

/** IO_FAILED that names the path. */
export function ioError(what: string, path: string, cause: unknown): FlashMoeError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new FlashMoeError("IO_FAILED", `cannot ${what} ${path}: ${detail}`, { cause });
}
