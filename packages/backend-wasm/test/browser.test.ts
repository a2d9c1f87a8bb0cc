import { conformanceInChromium, isolationHeaders, runInChromium } from "@flash-moe/chromium";
import { describe, expect, it } from "vitest";

const specifier = "@flash-moe/backend-wasm";
const flags = ["--disable-gpu"];

describe.each([
  { page: "an isolated page", headers: isolationHeaders, threads: "2 threads" },
  { page: "any other page", headers: {}, threads: "one thread (the page is not cross-origin isolated)" },
])("on $page", ({ headers, threads }) => {
  it(`conforms in Chromium, with ${threads}`, async ({ skip }) => {
    const answer = await conformanceInChromium(
      specifier,
      "wasm",
      "wasm.open({ threads: 2 })",
      flags,
      headers,
    );
    if (typeof answer === "string") return skip(answer);
    expect(answer.results).toEqual([]);
    expect(answer.failed + answer.skipped).toBe(0);
    expect(answer.passed).toBeGreaterThan(500);
    expect(answer.device).toBe(`CPU, WebAssembly relaxed SIMD, ${threads}`);
  }, 180_000);
});

/** The module of a page: a product that takes a while, the turns that the page has meanwhile, and what comes out. */
const longProduct = `
  import { wasm } from ${JSON.stringify(specifier)};
  async function run() {
    const backend = await wasm.open({ threads: 2 });
    const size = 1024;
    const a = backend.upload(new Float32Array(size * size).fill(1), [size, size]).buffer;
    const output = backend.zeros([size, size]);
    for (let n = 0; n < 4; n++) {
      backend.ops.linear({
        rows: size, inner: size, columns: size, a, b: a, output: output.buffer,
        ...(n > 0 && { accumulate: ["output"] }),
      });
    }
    let done = false;
    const result = output.read().then((values) => {
      done = true;
      return values[size * size - 1];
    });
    let turns = 0;
    while (!done) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      turns++;
    }
    const { device } = backend;
    const value = await result;
    await backend.dispose();
    return { device, turns, value };
  }`;

it("leaves the page its turns while threads work", async ({ skip }) => {
  const answer = await runInChromium<{ turns: number; value: number }>(longProduct, flags, isolationHeaders);
  if (typeof answer === "string") return skip(answer);
  expect(answer).toMatchObject({ value: 4096, device: "CPU, WebAssembly relaxed SIMD, 2 threads" });
  expect(answer.turns).toBeGreaterThan(5);
}, 60_000);

it("does without threads, and says so, where a policy forbids workers", async ({ skip }) => {
  const headers = { ...isolationHeaders, "content-security-policy": "worker-src 'none'" };
  const answer = await runInChromium<{ device: string; value: number }>(longProduct, flags, headers);
  if (typeof answer === "string") return skip(answer);
  expect(answer.value).toBe(4096);
  expect(answer.device).toContain("one thread (no worker threads: ");
  expect(answer.device).toContain("worker-src blob:");
}, 60_000);
