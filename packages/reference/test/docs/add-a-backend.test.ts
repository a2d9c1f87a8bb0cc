import { readFileSync } from "node:fs";
import * as core from "@flash-moe/core";
import { runConformance } from "@flash-moe/reference/conformance";
import { describe, expect, it } from "vitest";

const page = readFileSync(new URL("../../../../docs/add-a-backend.md", import.meta.url), "utf8");

/** The example of the page, run as the module that it is: core for its one import, its default export returned. */
function exampleProvider(): core.BackendProvider {
  const code = /^```js\n([\s\S]*?)^```/m.exec(page)?.[1] ?? "";
  const body = code
    .replace(/^import (\{.*\}) from "@flash-moe\/core";$/m, "const $1 = core;")
    .replace(/^export default /m, "return ");
  expect(body).not.toMatch(/^(import|export)\b/m);
  return new Function("core", body)(core);
}

describe("docs/add-a-backend.md", () => {
  it("has an example that passes the suite, skipping nothing but what it does not declare", async () => {
    const report = await runConformance(exampleProvider(), { required: true });
    const failures = report.results.filter(({ status }) => status === "failed");
    expect(failures.map(({ id, error }) => `${id}: ${error?.message}`)).toEqual([]);
    expect(report.ok).toBe(true);
    const linear = report.results.filter(({ id }) => id.startsWith("linear/f32/"));
    expect(linear.length).toBeGreaterThan(10);
    expect(new Set(linear.map(({ status }) => status))).toEqual(new Set(["passed"]));
    const reasons = new Set(
      report.results.filter(({ status }) => status === "skipped").map(({ reason }) => reason),
    );
    for (const reason of reasons) expect(reason).toMatch(/^(has no op \w+|does not store b?f16)$/);
  });

  it("has an example whose suite fails when its arithmetic is wrong", async () => {
    const provider = exampleProvider();
    const backend = await provider.open();
    const wrong = core.defineBackend(
      {
        ...backend,
        memoryLimitBytes: null,
        name: "wrong",
        device: "CPU",
        capabilities: backend.capabilities,
      },
      () => ({
        ops: { linear: ({ output }: core.LinearCall<Float32Array>) => output.fill(1) },
        alloc: (dtype, length) => core.hostArray(dtype, length) as Float32Array,
        free: () => {},
        write: (target, data, offset) => target.set(data, offset),
        read: async (source, offset, length) => source.slice(offset, offset + length),
        copy: (source, target) => target.set(source),
        sync: async () => {},
        dispose: async () => {},
      }),
    );
    const report = await runConformance(async () => wrong, { filter: (id) => id === "linear/f32/odd-sizes" });
    expect(report).toMatchObject({ ok: false, failed: 1 });
  });

  it("describes every op, method, capability and activation", () => {
    for (const op of core.opNames) expect(page).toContain(`### ${op}\n`);
    for (const activation of core.activations) expect(page).toContain(`| \`${activation}\` |`);
    for (const dtype of core.dtypes) expect(page).toContain(dtype);
  });

  it("links to headings and files that are there", () => {
    const anchors = [...page.matchAll(/^#+ (.+)$/gm)].map(([, title]) =>
      title
        .toLowerCase()
        .replace(/[^\w\- ]/g, "")
        .replaceAll(" ", "-"),
    );
    const links = [...page.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target);
    expect(links.length).toBeGreaterThan(10);
    for (const link of links) {
      if (link.startsWith("#")) expect(anchors).toContain(link.slice(1));
      else readFileSync(new URL(link, new URL("../../../../docs/", import.meta.url)));
    }
  });
});
