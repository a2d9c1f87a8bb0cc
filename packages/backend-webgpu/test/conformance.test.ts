import { webgpu } from "@flash-moe/backend-webgpu";
import { provideSoftwareAdapter } from "@flash-moe/chromium";
import { ConformanceSession, requiredBackends } from "@flash-moe/reference/conformance";
import { afterAll, describe, expect, it } from "vitest";

provideSoftwareAdapter();

const required = requiredBackends(process.env.FLASH_MOE_REQUIRE).has(webgpu.name);

/** Cases whose tables are larger than this, while all that is not split is smaller. */
const tableLimit = 72 * 512;
const largeTables = /^experts-.*\/(large-k|one-token|many-experts|wide)(\/|$)/;

const sessions: Record<string, ConformanceSession> = {
  // With a limit, which WebGPU does not tell, so that the case that asks for more than there is can be run, too.
  webgpu: new ConformanceSession(() => webgpu.open({ memoryLimitBytes: 2 ** 30 }), { required }),
  // Rows lie across the cuts, and windows of a table do not begin with a row.
  "webgpu with tables split": new ConformanceSession(() => webgpu.open({ bindingLimitBytes: tableLimit }), {
    required,
    filter: (id) => largeTables.test(id),
  }),
  // A cut every 384 f32: whatever has an offset is cut somewhere. One case multiplies matrices that are larger.
  "webgpu with buffers split": new ConformanceSession(() => webgpu.open({ bindingLimitBytes: 1536 }), {
    required,
    filter: (id) => /^(adamw|buffers)\//.test(id) && id !== "buffers/dispose-after-submission",
  }),
};

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
        // The first case that takes a kernel compiles it, which a software adapter is slow at.
      }, 180_000);
    }
  });
}
