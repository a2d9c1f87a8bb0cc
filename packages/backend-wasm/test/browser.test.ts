import { conformanceInChromium } from "@flash-moe/chromium";
import { expect, it } from "vitest";

it("conforms in Chromium, with relaxed SIMD", async ({ skip }) => {
  const answer = await conformanceInChromium("@flash-moe/backend-wasm", "wasm", "wasm.open()", [
    "--disable-gpu",
  ]);
  if (typeof answer === "string") return skip(answer);
  expect(answer.results).toEqual([]);
  expect(answer.failed + answer.skipped).toBe(0);
  expect(answer.passed).toBeGreaterThan(500);
  expect(answer.device).toContain("relaxed SIMD");
}, 180_000);
