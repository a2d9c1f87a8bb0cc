import { execFile } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { absentBrowser, isProvided, type OpenPage, openPage } from "@flash-moe/chromium";
import { describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("../verify-in-browser.mjs", import.meta.url));

interface Outcome {
  readonly out: string;
  readonly err: string;
  readonly code: number | null;
}

/** What is printed, and the exit code. `onUrl` gets the address of the page; once `signal` aborts, nobody opens it. */
function verify(
  args: readonly string[],
  onUrl: (url: string) => void = () => {},
  signal?: AbortSignal,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [script, ...args], { signal }, (_, out, err) =>
      resolve({ out, err, code: child.exitCode }),
    );
    createInterface(child.stdout!).on("line", (line) => {
      const url = /^open in a browser: (http:.*)$/.exec(line)?.[1];
      if (url !== undefined) onUrl(url);
    });
  });
}

/** The same, with Chromium as the one who opens the page. Where there is none: a string that says why. */
async function verifyInChromium(args: readonly string[]): Promise<Outcome | string> {
  if (!isProvided) return absentBrowser("npm has a Chromium for Linux on x64 only");
  const absent = new AbortController();
  let opening: Promise<OpenPage | undefined> = Promise.resolve(undefined);
  const outcome = await verify(
    args,
    (url) => {
      opening = openPage(url, ["--disable-gpu"]);
      opening.catch((error) => absent.abort(error));
    },
    absent.signal,
  );
  if (absent.signal.aborted) return absentBrowser(absent.signal.reason);
  await (await opening)?.close();
  return outcome;
}

describe.each([
  { args: [], device: "2 threads" },
  { args: ["--no-isolation"], device: "one thread (the page is not cross-origin isolated)" },
])("on a page with $device", ({ args, device }) => {
  it("tells what was found", async ({ skip }) => {
    const answer = await verifyInChromium(["--threads", "2", "--only", "linear/f32", ...args]);
    if (typeof answer === "string") return skip(answer);
    expect(answer.out).toMatch(/HeadlessChrome/);
    expect(answer.out).toContain(`wasm on CPU, WebAssembly relaxed SIMD, ${device}: conforms, `);
    expect(answer.code).toBe(0);
  }, 60_000);
});

it("fails where no case ran", async ({ skip }) => {
  const answer = await verifyInChromium(["--only", "no such case"]);
  if (typeof answer === "string") return skip(answer);
  expect(answer.err).toContain("--only no such case: no case has an id that contains it");
  expect(answer.code).toBe(1);
}, 60_000);

it("fails where the browser does not come up", async () => {
  const none = await verify(["--open", "false"]);
  expect(none.err).toContain("false ended (1) before the page said what it found");
  expect(none.code).toBe(1);
});

it.each([
  { args: ["--backend", "cpu"], message: "--backend is cpu; takes one of wasm, webgpu, reference" },
  { args: ["--threads", "0"], message: "--threads is 0; takes a number from 1 to 99" },
  { args: ["--backends", "wasm"], message: "--backends" },
])("refuses $args", async ({ args, message }) => {
  const { out, err, code } = await verify(args);
  expect(err).toContain(message);
  expect([out, code]).toEqual(["", 2]);
});
