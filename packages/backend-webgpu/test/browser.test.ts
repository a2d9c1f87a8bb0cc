import { conformanceInChromium, softwareWebGpu } from "@flash-moe/chromium";
import { expect, it } from "vitest";

it("conforms in Chromium, on SwiftShader", async ({ skip }) => {
  // With a limit, which WebGPU does not tell, so that the case that asks for more than there is can be run, too.
  const answer = await conformanceInChromium(
    "@flash-moe/backend-webgpu",
    "webgpu",
    "webgpu.open({ memoryLimitBytes: 2 ** 30 })",
    softwareWebGpu,
  );
  if (typeof answer === "string") return skip(answer);
  expect(answer.results).toEqual([]);
  expect(answer.failed + answer.skipped).toBe(0);
  expect(answer.passed).toBeGreaterThan(500);
  expect(answer.device).toContain("software");
}, 600_000);
