import { ConformanceSession } from "@flash-moe/reference/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { wasm } from "../src/index.js";
import { variants } from "./helpers/variants.js";

describe.each(variants)("%s", (variant) => {
  const session = new ConformanceSession(() => wasm.open({ variant }), { required: true });
  afterAll(() => session.close());

  it.each(session.cases)("$id", async (testCase) => {
    const { status, error } = await session.run(testCase);
    if (error !== undefined) throw error;
    expect(status).toBe("passed"); // nothing is skipped here
  });
});
