import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { runParts } from "../lib/run-parts.mjs";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "flash-moe-parts-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A program of these parts: name to the body of `run`. */
function program(parts: Record<string, string>, before = ""): string {
  const path = join(directory, "program.mjs");
  const list = Object.entries(parts).map(
    ([name, body]) => `{ name: "${name}", run: async () => { ${body} } }`,
  );
  writeFileSync(
    path,
    `import { serveParts } from ${JSON.stringify(new URL("../lib/serve-parts.mjs", import.meta.url).href)};
    const first = Number(process.argv.at(-1));
    ${before}
    await serveParts([${list.join(", ")}], first);`,
  );
  return path;
}

async function run(path: string) {
  const results: [string, unknown][] = [];
  const summary = await runParts({
    command: process.execPath,
    args: [path],
    silence: 2,
    onResult: (name, result) => results.push([name, result]),
  });
  return { ...summary, results };
}

const pid = "return { pid: process.pid }";

it("goes on after a part that throws, in the same process", async () => {
  const { results, ...rest } = await run(program({ a: pid, b: 'throw new Error("no")', c: pid }));
  expect(rest).toEqual({ complete: true, processes: 1, problems: [] });
  expect(results.map(([name]) => name)).toEqual(["a", "b", "c"]);
  expect(results[1][1]).toEqual({ error: "no" });
  expect(results[2][1]).toEqual(results[0][1]);
});

it("goes on in another process after a part that crashes, hangs or loses the device", async () => {
  const lost = 'throw Object.assign(new Error("lost"), { code: "DEVICE_LOST" })';
  const { results, ...rest } = await run(
    program({
      crash: 'process.kill(process.pid, "SIGSEGV"); await new Promise(() => {})',
      exit: "process.exit(7)",
      hang: "for (;;);",
      lost,
      last: "return { value: 1 }",
    }),
  );
  expect(rest).toEqual({ complete: true, processes: 5, problems: [] });
  expect(results).toEqual([
    ["crash", { error: "its process ended: SIGSEGV" }],
    ["exit", { error: "its process ended: exit code 7" }],
    ["hang", { error: "its process ended: nothing was heard of it for 2 s" }],
    ["lost", { error: "lost" }],
    ["last", { value: 1 }],
  ]);
});

it("ends what the process started and left", async () => {
  const mark = join(directory, "left");
  const start = `spawn("sh", ["-c", "sleep 1; touch ${mark}"], { stdio: "inherit" }); return {}`;
  const before = 'const { spawn } = await import("node:child_process");';
  const { complete, results } = await run(program({ start }, before));
  expect(complete).toBe(true);
  expect(results).toEqual([["start", {}]]);
  await sleep(1500);
  expect(existsSync(mark)).toBe(false);
});

it("tells of a process that fails after its last part", async () => {
  const { complete, problems } = await run(
    program({ a: 'process.on("exit", () => process.kill(process.pid, "SIGKILL")); return {}' }),
  );
  expect(complete).toBe(true);
  expect(problems).toEqual(["after the last part: SIGKILL"]);
});

it("gives up on a program that does not begin", async () => {
  const { complete, processes, problems, results } = await run(program({ a: pid }, "process.exit(4);"));
  expect({ complete, processes, results }).toEqual({ complete: false, processes: 2, results: [] });
  expect(problems).toEqual(["before part 0: exit code 4", "before part 0: exit code 4"]);
});

it("leaves what there is when it is ended, and no process", async () => {
  const path = program({
    a: pid,
    b: `(await import("node:fs")).writeFileSync(${JSON.stringify(join(directory, "at-b"))}, ""); for (;;);`,
  });
  const told = join(directory, "told.json");
  const parent = join(directory, "parent.mjs");
  writeFileSync(
    parent,
    `import { writeFileSync } from "node:fs";
    import { runParts } from ${JSON.stringify(new URL("../lib/run-parts.mjs", import.meta.url).href)};
    const results = [];
    const onResult = (name, result) => results.push({ name, ...result });
    const summary = await runParts({ command: process.execPath, args: [${JSON.stringify(path)}], silence: 60, onResult });
    writeFileSync(${JSON.stringify(told)}, JSON.stringify({ ...summary, results }));`,
  );
  const child = spawn(process.execPath, [parent], { stdio: "inherit" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  for (;;) {
    await sleep(20);
    try {
      readFileSync(join(directory, "at-b"));
      break;
    } catch {}
  }
  child.kill("SIGTERM");
  expect(await ended).toBe(0);
  const { complete, results } = JSON.parse(readFileSync(told, "utf8"));
  expect(complete).toBe(false);
  expect(results).toHaveLength(1);
  expect(() => process.kill(results[0].pid, 0)).toThrow("ESRCH");
});
