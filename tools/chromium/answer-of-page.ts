import { openModulePage } from "./open-module-page.js";

/**
 * Runs a module in a page of Chromium and resolves with what its function `run` returns, as JSON can tell it;
 * an exception, and a browser that ends by itself, become `{ error }`. Otherwise as `openModulePage`.
 */
export async function answerOfPage<Answer>(
  module: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer | { error: string }> {
  const asked = `${module}
    globalThis.answer = () => run().catch((error) => ({ error: String(error?.stack ?? error) }));`;
  const opened = await openModulePage(asked, flags, headers);
  try {
    // A page has loaded when its modules have run.
    const answer: Promise<Answer> = opened.page.evaluate("answer()");
    return await answer.catch((error: unknown) => ({ error: String(error) }));
  } finally {
    await opened.close();
  }
}
