import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type OpenPage, softwareWebGpu } from "@flash-moe/chromium";
import { reference } from "@flash-moe/reference";
import { loadLanguageModel } from "flash-moe/language-model";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { openBrowser } from "./helpers/browser.js";
import {
  chooseBackend,
  countFrames,
  fillLayer,
  openExample,
  parseSmall,
  patience,
  text,
} from "./helpers/example-page.js";
import { litExperts, routedHere } from "./helpers/heat-map.js";
import { type ServedPage, servePage } from "./helpers/served-page.js";

// A software adapter compiles and computes on the CPU, beside everything else that runs there.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const small = { keysX: 12, keysY: 20, topK: 7, tokens: 16, hiddenSize: 24 };

let served: ServedPage;
let browser: OpenPage | string;
beforeAll(async () => {
  served = await servePage();
  browser = await openBrowser(softwareWebGpu);
});
beforeEach(({ skip }) => {
  if (typeof browser === "string") skip(browser);
});
afterAll(async () => {
  if (typeof browser === "object") await browser.close();
  await served?.close();
});

/** The page, ready; closed when the test ends, whose result an error on the page is. */
async function withPage(
  test: (page: Awaited<ReturnType<typeof openExample>>["page"]) => Promise<void>,
  options: Parameters<typeof openExample>[2] = {},
): Promise<void> {
  const { page, errors } = await openExample(browser as OpenPage, served.url, options);
  try {
    await test(page);
    expect(errors).toEqual([]);
  } finally {
    await page.close();
  }
}

it("runs a layer forward and backward on WebGPU, as the oracle would, and says that the adapter is software", async () => {
  await withPage(async (page) => {
    expect(await page.locator("#software-notice").isVisible()).toBe(false);
    await chooseBackend(page, "webgpu", /software/);
    expect(await page.locator("#software-notice").isVisible()).toBe(true);
    for (const [dtype, tolerance] of [["f32", 1e-5] as const, ["bf16", 1e-5 + 2 ** -8] as const]) {
      await fillLayer(page, small, dtype);
      await page.locator("#layer-run").click();
      await page.locator("#layer-run:enabled").waitFor(patience);
      expect(await text(page, "#same-experts")).toBe("exact");
      const errors = await page.locator("#error-table tbody td.number").allTextContents();
      expect(errors).toHaveLength(11);
      for (const error of errors.map(parseSmall)) expect(error).toBeLessThanOrEqual(tolerance);
      expect(Math.max(...errors.map(parseSmall))).toBeGreaterThan(0);
      expect(await page.locator("#error-table .over").count()).toBe(0);
    }
    expect(await page.locator("#op-table tbody td.number").allTextContents()).toHaveLength(11);
    expect(await text(page, "#memory-peak")).toMatch(/^\d.* [KMG]iB$/);
  });
});

it("stays responsive while its worker computes", async () => {
  await withPage(async (page) => {
    await chooseBackend(page, "reference", /float64/);
    // Seconds of work: more than it can finish meanwhile, also where this process gets less of the machine than the page.
    await fillLayer(page, { keysX: 64, keysY: 64, topK: 16, tokens: 1024, hiddenSize: 256 }, "f32");
    const frames = await countFrames(page);
    const run = page.locator("#layer-run");
    await run.click();
    // Each phase is one that the worker is deep in: the page draws, and takes what is typed, all the same.
    await page.locator("#layer-progress span").filter({ hasText: "Running" }).waitFor(patience);
    const before = await frames();
    await page.locator("#prompt").fill("typed meanwhile");
    await page.waitForFunction(
      (count) => (globalThis as unknown as { frames: number }).frames > count + 10,
      before,
      patience,
    );
    expect(await run.isDisabled()).toBe(true);
    await page.locator("#layer-stop").click();
    await page.locator("#layer-run:enabled").waitFor(patience);
    expect(await page.locator("#layer-error").isVisible()).toBe(false);
  });
});

it("lights the very experts that the layer picks", async () => {
  const sentence = "From hell's heart";
  const { ids, topK } = await routedHere(sentence);
  await withPage(async (page) => {
    await page.locator("#sentence").fill(sentence);
    await page
      .locator("#tokens .token")
      .nth(sentence.length - 1)
      .waitFor(patience);
    await expect.poll(() => page.locator("#tokens .token").count(), patience).toBe(sentence.length);
    const all = [...new Set(ids)].sort((a, b) => a - b);
    await expect.poll(() => litExperts(page, 128, 128), patience).toEqual(all);
    await page.locator("#tokens").focus();
    for (const [presses, token] of [[1, 0] as const, [3, 3] as const]) {
      for (let press = 0; press < presses; press++) await page.keyboard.press("ArrowRight");
      const chosen = [...ids.subarray(token * topK, (token + 1) * topK)].sort((a, b) => a - b);
      expect(await litExperts(page, 128, 128)).toEqual(chosen);
    }
    expect(await text(page, "#routing-readout")).toContain("byte 4 of 17: 32 of 16,384 experts");
    // The pointer shows a byte for as long as it is there.
    await page.locator("#tokens .token").nth(8).hover();
    const hovered = [...ids.subarray(8 * topK, 9 * topK)].sort((a, b) => a - b);
    expect(await litExperts(page, 128, 128)).toEqual(hovered);
    await page.locator("#heat-map").hover();
    await page.locator("#tokens").press("Escape");
    expect(await litExperts(page, 128, 128)).toEqual(all);
  });
});

it("trains the model, and another backend goes on with the same one", async () => {
  await withPage(async (page) => {
    await page.locator("#train-steps").fill("80");
    await page.locator("#train-batch").fill("64");
    await page.locator("#train-start").click();
    await page.locator("#fact-step").filter({ hasText: "of 80" }).waitFor(patience);
    const first = Number(await text(page, "#fact-loss"));
    await page.locator("#fact-held-out").filter({ hasText: /\d/ }).waitFor(patience);
    const last = Number(await text(page, "#fact-loss"));
    expect(first).toBeGreaterThan(4.5);
    expect(last).toBeLessThan(4.4);
    expect(Number(await text(page, "#fact-held-out"))).toBeLessThan(4.4);
    expect(await text(page, "#fact-step")).toBe("80 of 80");
    expect(await text(page, "#model-summary")).toContain("80 steps");
    await expect.poll(() => text(page, "#routing-readout"), patience).toContain("after 80 steps");

    await page.locator("#temperature").fill("0");
    const continuation = async (): Promise<string> => {
      await page.locator("#generate-start").click();
      await page.locator("#continuation[aria-busy=false]").waitFor(patience);
      return text(page, "#continuation");
    };
    const made = await continuation();
    expect(made).toHaveLength("The whale ".length + 320);
    await chooseBackend(page, "reference", /float64/);
    expect(await continuation()).toBe(made);
  });
});

it("pauses, goes on and stops", async () => {
  await withPage(async (page) => {
    await page.locator("#text-source").selectOption("own");
    await page.locator("#own-text").fill("too short");
    await page.locator("#train-start").click();
    await page.locator("#train-error").filter({ hasText: "takes at least 1000" }).waitFor(patience);
    await page.locator("#own-text").fill("All my means are sane, my motive and my object mad. ".repeat(40));
    await page.locator("#train-steps").fill("1000000");
    await page.locator("#train-start").click();
    await page.locator("#fact-step").filter({ hasText: "of 1,000,000" }).waitFor(patience);
    const pause = page.locator("#train-pause");
    await pause.click();
    await pause.filter({ hasText: "Go on" }).waitFor(patience);
    // What was on the way when it was pressed arrives; then it stands still, and other work is done meanwhile.
    await page.locator("#generate-start").click();
    await page.locator("#continuation[aria-busy=false]").waitFor(patience);
    const held = await text(page, "#fact-step");
    await page.locator("#sentence").fill("mad");
    await expect.poll(() => page.locator("#tokens .token").count(), patience).toBe(3);
    expect(await text(page, "#fact-step")).toBe(held);
    await pause.click();
    await expect.poll(() => text(page, "#fact-step"), patience).not.toBe(held);
    // A layer runs between two steps; the device is training's still.
    await fillLayer(page, small, "f32");
    await page.locator("#layer-run").click();
    await page.locator("#same-experts").filter({ hasText: "exact" }).waitFor(patience);
    expect(await page.locator("input[value=reference]").isDisabled()).toBe(true);
    await page.locator("#train-stop").click();
    await page.locator("#train-start:enabled").waitFor(patience);
    expect(await page.locator("input[value=reference]").isEnabled()).toBe(true);
    expect(await text(page, "#fact-held-out")).toMatch(/^\d/);
  });
});

it("saves a checkpoint that Node reads, and loads it again", async () => {
  await withPage(async (page) => {
    await page.locator(".model-details summary").click();
    for (const name of ["keysX", "keysY"]) await page.locator(`#model-form input[name=${name}]`).fill("16");
    await page.locator("#model-new").click();
    await page.locator("#model-summary").filter({ hasText: "16 × 16 experts" }).waitFor(patience);
    await page.locator("#train-steps").fill("5");
    await page.locator("#train-start").click();
    await page.locator("#model-summary").filter({ hasText: "5 steps" }).waitFor(patience);
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.locator("#model-save").click(),
    ]);
    const bytes = await readFile(await download.path());
    const backend = await reference.open();
    const { model, training } = await loadLanguageModel(bytes, { backend });
    expect(model.config.layer).toMatchObject({ keysX: 16, keysY: 16, topK: 32, hiddenSize: 64 });
    expect(training?.steps).toBe(5);
    await backend.dispose();

    await page.locator("#model-new").click();
    await page.locator("#model-summary").filter({ hasText: "untrained" }).waitFor(patience);
    const file = { name: "model.safetensors", mimeType: "application/octet-stream", buffer: bytes };
    await page.locator("#model-file").setInputFiles(file);
    await page.locator("#model-summary").filter({ hasText: "5 steps" }).waitFor(patience);
    await page.locator("#model-file").setInputFiles({ ...file, buffer: bytes.subarray(0, 100) });
    await page
      .locator("#model-error")
      .filter({ hasText: /header/ })
      .waitFor(patience);
  });
});

it("can be used with a keyboard alone, and shows where it is", async () => {
  await withPage(async (page) => {
    /** Tabs on to an element, through elements that all show the focus. */
    const tabTo = async (id: string): Promise<void> => {
      for (let press = 0; press < 60; press++) {
        await page.keyboard.press("Tab");
        const { at, outlined } = await page.evaluate(() => {
          const focused = document.activeElement!;
          const shown = [focused, focused.closest("label"), focused.nextElementSibling];
          const outlined = shown.some(
            (node) => node !== null && getComputedStyle(node).outlineStyle !== "none",
          );
          return { at: focused.id || focused.getAttribute("value"), outlined };
        });
        expect(outlined, `focus on ${at}`).toBe(true);
        if (at === id) return;
      }
      throw new Error(`${id} is not reached by Tab`);
    };
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.className)).toBe("skip");
    await tabTo("wasm");
    await page.keyboard.press("ArrowDown");
    await page.locator("#device-name").filter({ hasText: "float64" }).waitFor(patience);
    await expect
      .poll(() => page.evaluate(() => document.activeElement?.getAttribute("value")))
      .toBe("reference");
    await page.keyboard.press("ArrowUp");
    await page.locator("#device-name").filter({ hasText: "WebAssembly" }).waitFor(patience);
    await fillLayer(page, small, "f32");
    await page.locator("#layer-preset").focus();
    await tabTo("layer-run");
    await page.keyboard.press("Enter");
    await page.locator("#same-experts").filter({ hasText: "exact" }).waitFor(patience);
    await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("layer-run");
    expect(await text(page, "#status")).toContain("within the tolerance");
    await tabTo("tokens");
    await page.keyboard.press("End");
    expect(await page.locator("#tokens").getAttribute("aria-activedescendant")).toBe("token-61");
    await tabTo("train-start");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("train-pause");
    await tabTo("train-stop");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.id), patience).toBe("train-start");
  });
});

it("says what to do where there is no WebGPU, and runs on WebAssembly", async () => {
  const without = (): void => {
    delete (Navigator.prototype as { gpu?: unknown }).gpu;
  };
  await withPage(
    async (page) => {
      const message = await text(page, "#webgpu-missing");
      expect(message).toContain("This browser does not offer it");
      expect(message).toContain("also runs on WebAssembly");
      expect(await page.locator("input[value=webgpu]").isDisabled()).toBe(true);
      expect(await page.locator("input[value=wasm]").isChecked()).toBe(true);
      await fillLayer(page, small, "f16");
      await page.locator("#layer-run").click();
      await page.locator("#same-experts").filter({ hasText: "exact" }).waitFor(patience);
    },
    { before: without },
  );
});

it("says so where WebGPU finds no GPU", async () => {
  const plain = await openBrowser([]);
  if (typeof plain === "string") throw new Error(plain);
  try {
    const { page } = await openExample(plain, served.url);
    expect(await text(page, "#webgpu-missing")).toContain("finds no GPU");
    expect(await page.locator("input[value=wasm]").isChecked()).toBe(true);
  } finally {
    await plain.close();
  }
});

it("says that the device was lost, and opens another", async () => {
  await withPage(async (page) => {
    const [worker] = page.workers();
    await worker.evaluate(() => {
      const adapter = (globalThis as unknown as { GPUAdapter: { prototype: GPUAdapterLike } }).GPUAdapter
        .prototype;
      const { requestDevice } = adapter;
      adapter.requestDevice = async function (this: GPUAdapterLike, ...args: unknown[]) {
        const device = await requestDevice.apply(this, args);
        Object.assign(globalThis, { openedDevice: device });
        return device;
      };
    });
    await chooseBackend(page, "webgpu", /software/);
    await page.locator("#train-start").click();
    await page.locator("#fact-step").filter({ hasText: "of 1,000" }).waitFor(patience);
    await worker.evaluate(() =>
      (globalThis as unknown as { openedDevice: DeviceLike }).openedDevice.destroy(),
    );
    await page.locator("#lost-notice").filter({ hasText: "The device was lost" }).waitFor(patience);
    await page.locator("#train-error").filter({ hasText: /\S/ }).waitFor(patience);
    expect(await page.locator("#layer-run").isDisabled()).toBe(true);
    expect(await page.locator("#train-start").isDisabled()).toBe(true);
    await page.locator("#reopen").click();
    await page.locator("#train-start:enabled").waitFor(patience);
    expect(await page.locator("#lost-notice").isVisible()).toBe(false);
    expect(await page.locator("#train-error").isVisible()).toBe(false);
    expect(await page.locator("#layer-run").isEnabled()).toBe(true);
  });
});

interface DeviceLike {
  destroy(): void;
}

interface GPUAdapterLike {
  requestDevice(...args: unknown[]): Promise<DeviceLike>;
}

it.each([360, 768, 1600])("fits a window of %i pixels", async (width) => {
  await withPage(
    async (page) => {
      await fillLayer(page, small, "f32");
      await page.locator("#layer-run").click();
      await page.locator("#same-experts").waitFor(patience);
      const needed = await page.evaluate(() => document.documentElement.scrollWidth);
      expect(needed).toBeLessThanOrEqual(width);
    },
    { width, height: 800 },
  );
});

it("refuses sizes that make no layer before it runs them", async () => {
  await withPage(async (page) => {
    await fillLayer(page, { ...small, topK: 241 }, "f32");
    expect(await text(page, "#layer-error")).toContain("topK is 241");
    expect(await page.locator("#layer-run").isDisabled()).toBe(true);
    await fillLayer(page, small, "f32");
    expect(await page.locator("#layer-error").isVisible()).toBe(false);
    expect(await page.locator("#layer-run").isEnabled()).toBe(true);
  });
});

it("is isolated, so that WebAssembly may have threads", async () => {
  await withPage(async (page) => {
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  });
});

it("is small: everything but texts and type, gzipped", async () => {
  const files = await readdir(served.folder, { recursive: true });
  const code = files.filter((name) => /\.(html|css|js)$/.test(name));
  const bytes = await Promise.all(code.map((name) => readFile(join(served.folder, name))));
  const total = bytes.reduce((sum, file) => sum + gzipSync(file, { level: 9 }).length, 0);
  expect(total).toBeGreaterThan(50_000);
  expect(total).toBeLessThan(180_000);
});
