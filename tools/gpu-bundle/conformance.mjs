// The conformance suite on the GPU. Results go to stdout as JSON, after each case a line to stderr.
//
// A kernel that reads where it must not leaves a CUDA context that nothing but the end of its process clears. So the
// cases run in a process of their own, and what comes after a case that lost the device, or ended or stopped the process,
// runs in a new one.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ConformanceSession } from "@flash-moe/reference/conformance";
import provider from "./cuda-provider.mjs";

/** A suite of which more than this fails so badly has told enough. */
const mostProcesses = 20;

const [role, start] = process.argv.slice(2);
if (role === "from") await runFrom(Number(start));
else await runAll();

/** Runs the cases from `first` on, and ends early where the device is lost. One line of JSON before and after each. */
async function runFrom(/** @type {number} */ first) {
  const session = new ConformanceSession(provider, { required: true, caseMilliseconds: 60_000 });
  const say = (/** @type {object} */ line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  const opened = await session.open();
  say({ opened: { ...opened, error: opened.error?.message }, device: session.device });
  if (opened.status !== "passed") process.exit(1);
  for (const [index, testCase] of session.cases.entries()) {
    if (index < first) continue;
    say({ begins: testCase.id, index });
    const { error, ...result } = await session.run(testCase);
    say({ result: { ...result, error: error?.message }, index });
    const code = error !== undefined && "code" in error ? error.code : undefined;
    // A hang, too, is the end: what hangs may still have the device.
    if (code === "DEVICE_LOST" || code === "UNAVAILABLE") process.exit(5);
    // Not by way of the driver, which may wait for the device.
    if (error?.name === "TimeLimitExceeded") process.kill(process.pid, "SIGKILL");
  }
  await session.close();
  say({ done: true });
  process.exit(0);
}

async function runAll() {
  /** @type {import("@flash-moe/reference/conformance").ConformanceResult[]} */
  const results = [];
  let device = "";
  let next = 0;
  let processes = 0;
  let done = false;
  const add = (/** @type {any} */ result) => {
    results.push(result);
    const { id, status, error, reason, milliseconds } = result;
    console.error(`${status} ${id} ${milliseconds} ms ${error ?? reason ?? ""}`);
  };
  // The time is up: what there is, is told.
  process.once("SIGTERM", () => {
    tell();
    process.exit(1);
  });
  while (!done && processes < mostProcesses) {
    processes++;
    let begun = /** @type {{ begins: string, index: number } | undefined} */ (undefined);
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), "from", String(next)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) =>
      child.on("close", (code, signal) => resolve(signal ?? `exit code ${code}`)),
    );
    for await (const text of createInterface({ input: child.stdout })) {
      if (!text.startsWith("{")) continue;
      const line = JSON.parse(text);
      if (line.opened) {
        device = line.device || device;
        if (line.opened.status !== "passed") add(line.opened);
      } else if (line.begins) {
        begun = line;
      } else if (line.result) {
        add(line.result);
        begun = undefined;
        next = line.index + 1;
      } else if (line.done) {
        done = true;
      }
    }
    const how = await ended;
    if (begun) {
      add({ id: begun.begins, status: "failed", error: `its process ended: ${how}`, milliseconds: 0 });
      next = begun.index + 1;
    } else if (!done && results.at(-1)?.id === "open") {
      break;
    }
  }
  tell();

  function tell() {
    const count = (/** @type {string} */ status) =>
      results.filter((result) => result.status === status).length;
    const report = {
      backend: "cuda",
      device,
      passed: count("passed"),
      failed: count("failed"),
      skipped: count("skipped"),
      processes,
      // Whether every case was reached.
      complete: done,
      ok: done && count("failed") === 0 && count("passed") > 0,
      results,
    };
    writeFileSync(1, `${JSON.stringify(report, undefined, 2)}\n`);
    const rest = done ? "" : "; cases are left that did not run";
    console.error(`${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped${rest}`);
    process.exitCode = report.ok ? 0 : 1;
  }
}
