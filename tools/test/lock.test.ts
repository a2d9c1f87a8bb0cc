import { spawn } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { acquireLock } from "../lib/lock.mjs";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "flash-moe-lock-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const lockModule = new URL("../lib/lock.mjs", import.meta.url).href;

/** A process that takes the lock, writes "in", stays a little, writes "out" and gives the lock back. */
function contender(log: string): Promise<number | null> {
  const script = `
    import { appendFileSync } from "node:fs";
    import { setTimeout } from "node:timers/promises";
    import { acquireLock } from ${JSON.stringify(lockModule)};
    const release = await acquireLock(${JSON.stringify(join(directory, "lock"))}, () => {});
    appendFileSync(${JSON.stringify(log)}, "in\\n");
    await setTimeout(30);
    appendFileSync(${JSON.stringify(log)}, "out\\n");
    release();`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "inherit" });
  return new Promise((resolve) => child.once("close", resolve));
}

function leaveLock(pid: number, host: string): void {
  mkdirSync(join(directory, "lock"));
  writeFileSync(join(directory, "lock/owner.json"), JSON.stringify({ pid, host, token: "left" }));
}

async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ["--eval", ""]);
  await new Promise((resolve) => child.once("close", resolve));
  return child.pid!;
}

it("lets one process in at a time, also when all of them find a dead owner's lock", async () => {
  leaveLock(await deadPid(), hostname());
  const log = join(directory, "log");
  appendFileSync(log, "");
  const codes = await Promise.all(Array.from({ length: 6 }, () => contender(log)));
  expect(codes).toEqual(Array(6).fill(0));
  expect(readFileSync(log, "utf8")).toBe("in\nout\n".repeat(6));
  expect(readdirSync(directory)).toEqual(["log"]);
});

it("waits for a living owner, says so once, and goes on when the lock is given back", async () => {
  const events: string[] = [];
  const path = join(directory, "lock");
  leaveLock(process.ppid, hostname());
  const waiting = acquireLock(path, (pid) => {
    events.push(`waits for ${pid}`);
    setTimeout(() => {
      events.push("given back");
      rmSync(path, { recursive: true });
    }, 250);
  });
  const release = await waiting;
  events.push("acquired");
  release();
  expect(events).toEqual([`waits for ${process.ppid}`, "given back", "acquired"]);
});

it("takes over the lock of another machine only when its owner has long been silent", async () => {
  const path = join(directory, "lock");
  leaveLock(1, "another-machine");
  let waited = false;
  const waiting = acquireLock(path, () => {
    waited = true;
    const longAgo = new Date(Date.now() - 60_000);
    utimesSync(path, longAgo, longAgo);
  });
  const release = await waiting;
  expect(waited).toBe(true);
  release();
  expect(readdirSync(directory)).toEqual([]);
});
