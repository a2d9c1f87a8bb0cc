import type { AbortSignalLike } from "@flash-moe/core";
import { type FileSystem, ioError, nodeFileSystem } from "./node-fs.js";

/**
 * Writes a file that is there whole or not at all: into a new file in the same folder, flushed to the
 * disk and renamed at the end. Whatever fails, and an abort, leaves what was at `path` as it was and no
 * file beside it.
 *
 * `fill` gets a function that appends bytes; what it throws is thrown. IO_FAILED with the path for what
 * the file system refuses, also where `path` is something other than a regular file.
 */
export async function writeBeside(
  path: string,
  fill: (append: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
  signal?: AbortSignalLike,
): Promise<void> {
  signal?.throwIfAborted();
  const fs = await nodeFileSystem(path);
  const attempt = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    try {
      return await work();
    } catch (cause) {
      throw ioError("write", path, cause);
    }
  };

  const target = await attempt(() => resolveTarget(fs, path));
  const { dirname, basename, join } = await import("node:path");
  const folder = dirname(target);
  const random = Math.random().toString(36).slice(2, 10);
  const beside = join(folder, `.${basename(target).slice(0, 100)}.${random}.tmp`);
  const handle = await attempt(() => fs.open(beside, "wx"));
  let renamed = false;
  try {
    try {
      await fill(async (bytes) => {
        signal?.throwIfAborted();
        let written = 0;
        while (written < bytes.length) {
          const step = await attempt(() => handle.write(bytes, written, bytes.length - written));
          written += step.bytesWritten;
        }
      });
      signal?.throwIfAborted();
      await attempt(() => handle.sync());
    } finally {
      await attempt(() => handle.close());
    }
    signal?.throwIfAborted();
    await attempt(() => fs.rename(beside, target));
    renamed = true;
  } finally {
    if (!renamed) await fs.unlink(beside).catch(() => {});
  }
  await syncFolder(fs, folder);
}

/** What a rename has to replace: behind links, so that these stay; never a device, a pipe or a folder. */
async function resolveTarget(fs: FileSystem, path: string): Promise<string> {
  let target: string;
  try {
    target = await fs.realpath(path);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return path;
    throw error;
  }
  if (!(await fs.stat(target)).isFile()) {
    throw new Error("it is there and not a regular file");
  }
  return target;
}

/** Makes the rename last through a power cut; not every system can. */
async function syncFolder(fs: FileSystem, folder: string): Promise<void> {
  try {
    const handle = await fs.open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch {
    // The file itself is complete and in place.
  }
}
