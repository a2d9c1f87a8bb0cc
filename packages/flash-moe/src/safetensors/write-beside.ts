import type { AbortSignalLike } from "@flash-moe/core";
import { ioError, type NodeFiles, nodeFiles } from "./node-fs.js";

/**
 * IO_FAILED if it can be told that `writeBeside` will not be able to write there: for a long job to ask
 * before it begins. Writes nothing.
 */
export async function checkWritable(path: string): Promise<void> {
  const node = nodeFiles("write", path);
  const { fs } = node;
  try {
    const { file } = await resolveTarget(node, path);
    await fs.access(node.path.dirname(file), fs.constants.W_OK | fs.constants.X_OK);
  } catch (cause) {
    throw ioError("write", path, cause);
  }
}

/**
 * Writes a file that is there whole or not at all: into a new file in the same folder, flushed to the
 * disk and renamed at the end. Whatever fails, and an abort, leaves what was at `path` as it was and no
 * file beside it. A file that is replaced leaves its permissions to the new one.
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
  const node = nodeFiles("write", path);
  const { fs } = node;
  const attempt = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    try {
      return await work();
    } catch (cause) {
      throw ioError("write", path, cause);
    }
  };

  const target = await attempt(() => resolveTarget(node, path));
  const { dirname, basename, join } = node.path;
  const folder = dirname(target.file);
  const random = Math.random().toString(36).slice(2, 10);
  // A name has 255 bytes at most, and a character up to three.
  const beside = join(folder, `.${basename(target.file).slice(0, 60)}.${random}.tmp`);
  const handle = await attempt(() => fs.open(beside, "wx"));
  let renamed = false;
  try {
    try {
      const { mode } = target;
      if (mode !== undefined) await attempt(() => handle.chmod(mode));
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
    await attempt(() => fs.rename(beside, target.file));
    renamed = true;
  } finally {
    if (!renamed) await fs.unlink(beside).catch(() => {});
  }
  await syncFolder(fs, folder);
}

interface Target {
  readonly file: string;
  /** The permissions of the file that is there. */
  readonly mode?: number;
}

/** What a rename has to replace: behind links, so that these stay; never a device, a pipe or a folder. */
async function resolveTarget(node: NodeFiles, path: string): Promise<Target> {
  const { fs } = node;
  let file: string;
  try {
    file = await fs.realpath(path);
  } catch (error) {
    if (!isAbsent(error)) throw error;
    const link = await fs.readlink(path).catch(() => undefined);
    if (link === undefined) return { file: path };
    const folder = await fs.realpath(node.path.dirname(path));
    return resolveTarget(node, node.path.resolve(folder, link));
  }
  const found = await fs.stat(file);
  if (!found.isFile()) throw new Error("it is there and not a regular file");
  return { file, mode: found.mode & 0o777 };
}

function isAbsent(error: unknown): boolean {
  return (error as { code?: unknown }).code === "ENOENT";
}

/** Makes the rename last through a power cut; not every system can. */
async function syncFolder(fs: NodeFiles["fs"], folder: string): Promise<void> {
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
