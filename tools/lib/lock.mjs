// A lock between processes, as a directory: making it by rename is atomic, and it never exists without its
// owner's name in it. The owner touches it every few seconds, so that a lock whose owner is gone is known.
import { randomUUID } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const HEARTBEAT_MS = 2_000;
const STALE_MS = 30_000;

/**
 * Waits until this process holds the lock, and returns the function that gives it back.
 *
 * @param {string} path - the directory that is the lock; its parent must exist
 * @param {(ownerPid: number) => void} onWait - called once when somebody else holds the lock
 * @returns {Promise<() => void>}
 */
export async function acquireLock(path, onWait) {
  const owner = { pid: process.pid, host: hostname(), token: randomUUID() };
  const mine = `${path}.${owner.token}`;
  mkdirSync(mine);
  writeFileSync(join(mine, "owner.json"), JSON.stringify(owner));
  let waiting = false;
  for (;;) {
    touch(mine); // so that the lock is not born old after a long wait
    if (tryRename(mine, path)) break;
    const other = readOwner(path);
    if (other && isGone(path, other)) {
      takeAway(path, other.token);
    } else {
      if (other && !waiting) onWait(other.pid);
      waiting = true;
      await sleep(100);
    }
  }
  const heartbeat = setInterval(() => touch(path), HEARTBEAT_MS);
  heartbeat.unref();
  return () => {
    clearInterval(heartbeat);
    takeAway(path, owner.token);
  };
}

/** Renaming a directory over one that is not empty fails on every system, which is the whole lock. */
function tryRename(from, to) {
  // Windows reports the taken lock and a file that is just being looked at by the same codes: try again later.
  if (existsSync(to)) return false;
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (["EEXIST", "ENOTEMPTY", "EPERM", "EACCES", "EBUSY"].includes(error.code)) return false;
    throw error;
  }
}

function readOwner(path) {
  try {
    return JSON.parse(readFileSync(join(path, "owner.json"), "utf8"));
  } catch {
    return undefined; // just given back, or just being taken away
  }
}

function isGone(path, owner) {
  if (owner.host === hostname() && !isAlive(owner.pid)) return true;
  try {
    return Date.now() - statSync(path).mtimeMs > STALE_MS;
  } catch {
    return false;
  }
}

function isAlive(pid) {
  if (pid === process.pid) return false; // an earlier process with this number: this one holds no lock yet
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Removes the lock with this token. Of several that try, one moves it; another lock that got moved is put back. */
function takeAway(path, token) {
  const away = `${path}.${randomUUID()}`;
  if (!tryRename(path, away)) return;
  if (readOwner(away)?.token === token || !tryRename(away, path))
    rmSync(away, { recursive: true, force: true });
}

function touch(path) {
  try {
    const now = new Date();
    utimesSync(path, now, now);
  } catch {
    // The lock was taken away while this process was suspended; giving it back checks whose it is.
  }
}
