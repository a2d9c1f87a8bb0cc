import { fileURLToPath } from "node:url";
import type { ConformanceReport } from "@flash-moe/reference/conformance";
import { expect, it } from "vitest";
import { createViteServer } from "vitest/node";
import { hasChromium, openInChromium } from "./helpers/chromium.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/**
 * With a limit, which WebGPU does not tell, so that the case that asks for more than there is can be run, too. Loads
 * the packages from their sources, as a bundler would, and sends back what the suite says.
 */
const page = `<!doctype html><script type="module">
  import { webgpu } from "@flash-moe/backend-webgpu";
  import { runConformance } from "@flash-moe/reference/conformance";

  async function run() {
    const report = await runConformance(() => webgpu.open({ memoryLimitBytes: 2 ** 30 }), { required: true });
    const failures = report.results.filter(({ status }) => status !== "passed");
    return { ...report, results: failures.map(({ id, reason, error }) => ({ id, reason: reason ?? error.message })) };
  }

  const answer = await run().catch((error) => ({ error: String(error?.stack ?? error) }));
  await fetch("/answer", { method: "POST", body: JSON.stringify(answer) });
</script>`;

type Answer = Omit<ConformanceReport, "results"> & { results: object[]; error?: string };

/** Serves the page and resolves with what it posts. */
async function askPage(): Promise<Answer> {
  let resolveAnswer!: (answer: Answer) => void;
  const answered = new Promise<Answer>((resolve) => {
    resolveAnswer = resolve;
  });
  const server = await createViteServer({
    root,
    configFile: false,
    logLevel: "error",
    appType: "custom",
    optimizeDeps: { noDiscovery: true },
    resolve: { conditions: ["@flash-moe/source"] },
    server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
  });
  try {
    server.middlewares.use((request, response) => {
      if (request.url === "/answer") {
        let body = "";
        request.on("data", (text) => {
          body += text;
        });
        request.on("end", () => {
          response.end();
          resolveAnswer(JSON.parse(body));
        });
        return;
      }
      void server.transformIndexHtml("/index.html", page).then((html) => {
        response.setHeader("content-type", "text/html");
        response.end(html);
      });
    });
    await server.listen();
    const address = server.httpServer?.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    const chromium = openInChromium(`http://127.0.0.1:${address.port}/`);
    try {
      return await Promise.race([answered, chromium.ended]);
    } finally {
      await chromium.close();
    }
  } finally {
    await server.close();
  }
}

it.runIf(hasChromium)(
  "conforms in Chromium, on SwiftShader",
  async () => {
    const answer = await askPage();
    expect(answer.error).toBeUndefined();
    expect(answer.results).toEqual([]);
    expect(answer.failed + answer.skipped).toBe(0);
    expect(answer.passed).toBeGreaterThan(500);
    expect(answer.device).toContain("software");
  },
  600_000,
);
