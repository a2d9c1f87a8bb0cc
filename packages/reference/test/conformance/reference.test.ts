import { reference } from "@flash-moe/reference";
import { ConformanceSession } from "@flash-moe/reference/conformance";
import { afterAll, describe, expect, it } from "vitest";

// A small limit, so that the case that asks for more than there is can be run, too.
const session = new ConformanceSession(() => reference.open({ memoryLimitBytes: 2 ** 30 }));
afterAll(() => session.close());

describe("conformance of reference", () => {
  for (const testCase of session.cases) {
    it(testCase.id, async () => {
      const { status, reason, error } = await session.run(testCase);
      if (status === "failed") throw error;
      expect(reason, "the reference backend has everything").toBeUndefined();
    });
  }
});
