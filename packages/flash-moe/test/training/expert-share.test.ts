import { expect, it } from "vitest";
import { ExpertShare } from "../../src/training/expert-share.js";

it("counts the experts of the last batches, each once", () => {
  const share = new ExpertShare(10, 2);
  expect(share.share).toBe(0);
  share.add(Int32Array.of(0, 1, 1, 2));
  expect(share.share).toBe(0.3);
  share.add(Int32Array.of(2, 9));
  expect(share.share).toBe(0.4);
  share.add(Int32Array.of(9));
  expect(share.share).toBe(0.2);
});
