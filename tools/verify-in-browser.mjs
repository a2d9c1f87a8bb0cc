// The conformance suite of a backend in any browser of this machine: pnpm verify:browser [--backend wasm]
// [--threads N] [--no-isolation] [--only TEXT] [--open COMMAND] [--json]
//
// Prints the address of a page that runs it, and what that page found once somebody has opened it. --open has a command
// do that, the address behind its words, and ends it afterwards: --open "firefox --headless". --no-isolation: the page
// may have no threads, as where a server does not send the two headers. The exit code is 1 unless all passed.
import { spawn } from "node:child_process";
import { setTimeout } from "node:timers/promises";
import { isolationHeaders, servePage } from "./chromium/serve-page.mjs";
import { readCommandLine, refuse } from "./lib/command-line.mjs";

const backends = ["wasm", "webgpu", "reference"];

/** @typedef {{ id: string, message: string }} Told */
/**
 * @typedef {{ cases: number, failed: number } |
 *   { browser: string, backend: string, device: string, passed: number, failures: Told[], skips: Told[], ok: boolean } |
 *   { error: string }} Message
 */

const options = readOptions();
const headers = options["no-isolation"] ? {} : isolationHeaders;
/** @type {(message: Exclude<Message, { cases: number }>) => void} */
let finish = () => {};
const finished = new Promise((resolve) => {
  finish = resolve;
});
const server = await servePage(page(), headers, (body) => {
  /** @type {Message} */
  const message = JSON.parse(body);
  if ("cases" in message) show(`${message.cases} cases, ${message.failed} failed`);
  else finish(message);
});
const browser = options.open === undefined ? undefined : open(options.open, server.url);
if (!options.json) console.log(`${browser ? "opened" : "open in a browser:"} ${server.url}`);
process.once("SIGINT", () => end(130));
process.once("SIGTERM", () => end(143));
end(tell(await finished));

function readOptions() {
  const { values } = readCommandLine(import.meta.url, {
    backend: { type: "string", default: "wasm" },
    threads: { type: "string" },
    "no-isolation": { type: "boolean", default: false },
    only: { type: "string", default: "" },
    open: { type: "string" },
    json: { type: "boolean", default: false },
  });
  const { backend, threads } = values;
  if (!backends.includes(backend)) refuse(`--backend is ${backend}; takes one of ${backends.join(", ")}`);
  if (threads !== undefined && (backend !== "wasm" || !/^[1-9]\d?$/.test(threads))) {
    refuse(`--threads is ${threads}; takes a number from 1 to 99, with the backend wasm`);
  }
  return values;
}

/** What runs in the browser. It says how far it is to whoever looks at it, and everything to this script. */
function page() {
  const { backend, threads, only } = options;
  const specifier = backend === "reference" ? "@flash-moe/reference" : `@flash-moe/backend-${backend}`;
  return `<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<title>${backend}: conformance</title>
<style>body { font: 16px/1.5 system-ui; max-width: 60em; margin: 3em auto; padding: 0 1em } li { margin: 0.5em 0 }</style>
<h1>Conformance of ${backend}</h1>
<p id="state" role="status">Opening the backend</p>
<ul id="failures"></ul>
<script type="module">
  const only = ${JSON.stringify(only)};
  const state = document.querySelector("#state");
  const post = (message) => fetch("/", { method: "POST", body: JSON.stringify(message) });
  const messageOf = ({ id, reason, error }) => ({ id, message: reason ?? error.message });
  let cases = 0;
  const failures = [];
  let told = performance.now();

  function note(result) {
    cases++;
    if (result.status === "failed") {
      failures.push(messageOf(result));
      const line = document.createElement("li");
      line.textContent = result.id + ": " + failures.at(-1).message;
      document.querySelector("#failures").append(line);
    }
    if (performance.now() - told < 200) return;
    told = performance.now();
    state.textContent = cases + " cases, " + failures.length + " failed";
    post({ cases, failed: failures.length });
  }

  try {
    const { ${backend}: provider } = await import(${JSON.stringify(specifier)});
    const { runConformance } = await import("@flash-moe/reference/conformance");
    const open = () => provider.open(${JSON.stringify(threads === undefined ? {} : { threads: Number(threads) })});
    const report = await runConformance(open, { required: true, filter: (id) => id.includes(only), onResult: note });
    if (cases === 0) throw new Error("--only " + only + ": no case has an id that contains it");
    const { backend, device, passed, ok } = report;
    const skips = report.results.filter(({ status }) => status === "skipped").map(messageOf);
    state.textContent = (ok ? "Conforms: " : "DOES NOT CONFORM: ") + device + ", " + passed + " passed, " +
      failures.length + " failed, " + skips.length + " skipped";
    await post({ browser: navigator.userAgent, backend, device, passed, failures, skips, ok });
  } catch (error) {
    state.textContent = String(error);
    await post({ error: String(error?.stack ?? error) });
  }
</script>`;
}

/** @param {string} command @param {string} url */
function open(command, url) {
  // A group of its own: a browser is many processes.
  const child = spawn(`${command} ${url}`, {
    shell: true,
    detached: true,
    stdio: ["ignore", "ignore", "inherit"],
  });
  // Some hand the page on to a browser that runs, or start anew, and end without an error.
  child.on("exit", (code) => {
    if (code !== 0) finish({ error: `${command} ended (${code}) before the page said what it found` });
  });
  return child;
}

/** Says what was found; returns the exit code. @param {Exclude<Message, { cases: number }>} message */
function tell(message) {
  show("");
  if (options.json) console.log(JSON.stringify(message));
  else if ("error" in message) console.error(message.error);
  else console.log(describe(message));
  return "ok" in message && message.ok ? 0 : 1;
}

/** @param {Extract<Message, { ok: boolean }>} message */
function describe({ browser, backend, device, passed, failures, skips, ok }) {
  const lines = [
    ...failures.map(({ id, message }) => `FAILED ${id}\n  ${message}`),
    ...skips.map(({ id, message }) => `skipped ${id}: ${message}`),
    browser,
  ];
  if (backend !== "") {
    const counts = `${passed} passed, ${failures.length} failed, ${skips.length} skipped`;
    lines.push(`${backend} on ${device}: ${ok ? "conforms" : "DOES NOT CONFORM"}, ${counts}`);
  }
  return lines.join("\n");
}

/** @param {number} code */
async function end(code) {
  const late = Date.now() + 5000;
  /** @type {NodeJS.Signals | 0} */
  let name = "SIGTERM";
  while (browser?.pid !== undefined && signal(browser.pid, name)) {
    await setTimeout(100);
    name = Date.now() < late ? 0 : "SIGKILL";
  }
  await server.close();
  process.exit(code);
}

/**
 * To the processes of a browser; false if there are none.
 *
 * @param {number} group @param {NodeJS.Signals | 0} name 0: only asks
 */
function signal(group, name) {
  try {
    return process.kill(-group, name);
  } catch {
    return false;
  }
}

/** Replaces the last line of a terminal. @param {string} line */
function show(line) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}
