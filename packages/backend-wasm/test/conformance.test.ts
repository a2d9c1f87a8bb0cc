import { ConformanceSession } from "@flash-moe/reference/conformance";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { wasm } from "../src/index.js";
import { CallingThread } from "../src/threads/calling-thread.js";
import { variants } from "./helpers/variants.js";

// With threads, everything goes to them, however small it is.
describe.each(variants.flatMap((variant) => [1, 3].map((threads) => ({ variant, threads }))))(
  "$variant, threads: $threads",
  (options) => {
    const session = new ConformanceSession(() => wasm.open(options), { required: true });
    beforeAll(() => {
      if (options.threads > 1) vi.spyOn(CallingThread.prototype, "takes").mockReturnValue(false);
    });
    afterAll(async () => {
      await session.close();
      vi.restoreAllMocks();
    });

    it.each(session.cases)("$id", async (testCase) => {
      const { status, error } = await session.run(testCase);
      if (error !== undefined) throw error;
      expect(status).toBe("passed"); // nothing is skipped here
    });
  },
);
