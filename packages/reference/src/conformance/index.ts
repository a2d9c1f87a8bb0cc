/**
 * The conformance suite: what every backend must do, as data. It knows no test framework, so that it runs
 * under one, in a browser page, in Deno, and from the command line (`flash-moe verify`).
 *
 * At once, with a report:
 *
 *     import { runConformance } from "@flash-moe/reference/conformance";
 *
 *     const report = await runConformance(provider, { onResult: ({ id, status }) => console.log(status, id) });
 *     if (!report.ok) throw new Error(`${report.failed} of ${report.results.length} cases failed`);
 *
 * Under vitest, one test per case (other frameworks differ in the names only):
 *
 *     import { ConformanceSession, requiredBackends } from "@flash-moe/reference/conformance";
 *     import { afterAll, describe, it } from "vitest";
 *
 *     const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has(provider.name);
 *     const session = new ConformanceSession(provider, { required });
 *     afterAll(() => session.close());
 *     describe(`conformance of ${provider.name}`, () => {
 *       for (const testCase of session.cases) {
 *         it(testCase.id, async (test) => {
 *           const { status, reason, error } = await session.run(testCase);
 *           if (status === "failed") throw error;
 *           if (status === "skipped") test.skip(reason);
 *         });
 *       }
 *     });
 *
 * A case is skipped by what the backend declares (`capabilities`, `memory().limitBytes`) and by nothing
 * else; a backend that is absent is skipped whole, unless it is `required`: then it is a failure. No case
 * depends on another, so any of them can be run alone (`filter`).
 */
export type { ConformanceCase, DeclaredBackend } from "./case.js";
export { conformanceCases } from "./cases/index.js";
export type { CaseContext, WorstComparison } from "./context.js";
export { requiredBackends } from "./required.js";
export {
  type BackendOpener,
  type ConformanceReport,
  type ConformanceResult,
  ConformanceSession,
  type RunOptions,
  runConformance,
  type SessionOptions,
} from "./run.js";
