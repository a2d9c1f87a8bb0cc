import { type Browser, chromium, type Page } from "playwright-core";
import { unpackChromium } from "./unpack.js";

/** What makes WebGPU run in a Chromium without a GPU: SwiftShader, which lies beside the executable. */
export const softwareWebGpu: readonly string[] = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
];

/** A page that Playwright drives, and the browser that it is in. */
export interface OpenPage {
  readonly page: Page;
  /** Closes the browser. */
  close(): Promise<void>;
}

/**
 * Opens a page in a headless Chromium, the one of the package @sparticuz/chromium. Rejects, with what the browser
 * said, where it cannot be started.
 *
 * The headless mode is the browser's own: the headless shell that Playwright would start has no WebGPU.
 */
export async function openPage(url: string, flags: readonly string[]): Promise<OpenPage> {
  const { executable, libraries } = unpackChromium();
  const browser: Browser = await chromium.launch({
    executablePath: executable,
    chromiumSandbox: false,
    args: ["--headless=new", "--no-zygote", "--disable-dev-shm-usage", ...flags],
    env: { ...process.env, LD_LIBRARY_PATH: libraries },
  });
  try {
    const page = await browser.newPage();
    await page.goto(url);
    return { page, close: () => browser.close() };
  } catch (error) {
    await browser.close();
    throw error;
  }
}
