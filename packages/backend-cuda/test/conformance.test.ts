import { cuda } from "@flash-moe/backend-cuda";
import { ConformanceSession, requiredBackends } from "@flash-moe/reference/conformance";
import { afterAll, describe, expect, it } from "vitest";
import { openShim, shim, shimRequired } from "./helpers/shim.js";

const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has(cuda.name);
const gpu = await cuda.probe();

const sessions: Record<string, ConformanceSession> = {};
if (gpu.available || required) sessions["cuda on a GPU"] = new ConformanceSession(cuda, { required });
if (!("reason" in shim) || shimRequired) {
  sessions["cuda on the CPU shim"] = new ConformanceSession(() => openShim(), { required: true });
}

it("runs on a GPU", ({ skip }) => {
  // Not a skip of each case: without a GPU nothing here is more than the shim's.
  if (!gpu.available && !required) skip(gpu.reason);
  expect(gpu).toMatchObject({ available: true });
});

it("says why there is no CPU shim, if there is none", () => {
  if ("reason" in shim) expect(shim.reason).toMatch(/compiler|g\+\+/);
  else expect(shim.binary).toContain("shim");
});

for (const [name, session] of Object.entries(sessions)) {
  describe(`conformance of ${name}`, () => {
    afterAll(() => session.close());
    it("opens", async ({ skip }) => {
      const { status, reason, error } = await session.open();
      if (status === "skipped") skip(reason);
      expect(error).toBeUndefined();
    });
    for (const testCase of session.cases) {
      it(testCase.id, async ({ skip }) => {
        const { status, reason, error } = await session.run(testCase);
        if (status === "failed") throw error;
        if (status === "skipped") skip(reason);
      });
    }
  });
}
