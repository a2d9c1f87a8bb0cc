import type { ConformanceReport } from "@flash-moe/reference/conformance";
import { absentBrowser } from "./absent-browser.js";
import { answerOfPage } from "./answer-of-page.js";
import { isProvided } from "./unpack.js";

/** What the suite said in the browser: of the results, only those that did not pass. */
export type ConformanceAnswer = Omit<ConformanceReport, "results"> & {
  readonly results: readonly { readonly id: string; readonly reason: string }[];
};

/**
 * Runs the conformance suite in Chromium on the backend that `open`, code that may use the export `provider`
 * of the module `specifier`, opens; the page is served with `headers`. Where no browser can be had: a string
 * that says why, or an exception if FLASH_MOE_REQUIRE names "browser".
 */
export async function conformanceInChromium(
  specifier: string,
  provider: string,
  open: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<ConformanceAnswer | string> {
  const module = `
    import { ${provider} } from ${JSON.stringify(specifier)};
    import { runConformance } from "@flash-moe/reference/conformance";
    async function run() {
      const report = await runConformance(() => ${open}, { required: true });
      const failures = report.results.filter(({ status }) => status !== "passed");
      const results = failures.map(({ id, reason, error }) => ({ id, reason: reason ?? error.message }));
      return { ...report, results };
    }`;
  return runInChromium<ConformanceAnswer>(module, flags, headers);
}

/** What the function `run` of a module returns in a page of Chromium. Where no browser can be had, as above. */
export async function runInChromium<Answer extends object>(
  module: string,
  flags: readonly string[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer | string> {
  if (!isProvided) return absentBrowser("npm has a Chromium for Linux on x64 only");
  let answer: Answer | { error: string };
  try {
    answer = await answerOfPage<Answer>(module, flags, headers);
  } catch (error) {
    return absentBrowser(error);
  }
  if ("error" in answer) throw new Error(answer.error);
  return answer;
}
