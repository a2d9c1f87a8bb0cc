import type { OpenPage } from "@flash-moe/chromium";

export type Page = OpenPage["page"];

/** As long as a step may take on a software adapter on a busy machine. */
export const patience = { timeout: 120_000 };

/** Opens the example in a tab of its own and waits until it can be used. Errors of the page are thrown by `errors`. */
export async function openExample(
  { page: first }: OpenPage,
  url: string,
  options: { readonly width?: number; readonly height?: number; readonly before?: () => void } = {},
): Promise<{ readonly page: Page; readonly errors: string[] }> {
  const { width = 1280, height = 900, before } = options;
  const page = await first.context().browser()!.newPage({ viewport: { width, height } });
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  if (before !== undefined) await page.addInitScript(before);
  await page.goto(url);
  await page.locator("#train-start:enabled").waitFor(patience);
  await page.locator("#tokens .token").first().waitFor(patience);
  return { page, errors };
}

/** Chooses a backend and waits until the page runs on it. */
export async function chooseBackend(page: Page, name: string, device: RegExp): Promise<void> {
  await page.locator(`input[name=backend][value=${name}]`).check();
  await page.locator("#device-name").filter({ hasText: device }).waitFor(patience);
}

export interface LayerSizes {
  readonly keysX: number;
  readonly keysY: number;
  readonly topK: number;
  readonly tokens: number;
  readonly hiddenSize: number;
}

export async function fillLayer(page: Page, sizes: LayerSizes, dtype: string): Promise<void> {
  for (const [name, value] of Object.entries(sizes)) {
    await page.locator(`#layer-form input[name=${name}]`).fill(String(value));
  }
  await page.locator(`#layer-form input[value=${dtype}]`).check({ force: true });
}

export async function text(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).textContent()) ?? "";
}

/** What the page writes as 4.8 × 10⁻⁷. */
export function parseSmall(written: string): number {
  const [digits, power] = written.split(" × 10");
  const exponent = Array.from(power ?? "", (sign) => (sign === "⁻" ? "-" : "⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(sign)));
  return Number(`${digits}e${exponent.join("") || "0"}`);
}

/** Counts the frames that the page draws from now on. */
export async function countFrames(page: Page): Promise<() => Promise<number>> {
  await page.evaluate(() => {
    const counter = globalThis as unknown as { frames: number };
    counter.frames = 0;
    const count = (): void => {
      counter.frames++;
      requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
  });
  return () => page.evaluate(() => (globalThis as unknown as { frames: number }).frames);
}
