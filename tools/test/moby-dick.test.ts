import { expect, it } from "vitest";
import { mobyDick } from "../moby-dick.mjs";

it("is the book in order, and holds the chase and the epilogue out", () => {
  const { text, heldOutStart } = mobyDick();
  expect(text.length).toBeGreaterThan(1_200_000);
  const training = text.subarray(0, heldOutStart).toString();
  const heldOut = text.subarray(heldOutStart).toString();
  expect(heldOut.startsWith("CHAPTER 133. The Chase")).toBe(true);
  expect(heldOut.trimEnd().endsWith("found another orphan.")).toBe(true);
  expect(heldOut.length / text.length).toBeGreaterThan(0.05);
  const chapters = [1, 2, 67, 131, 132].map((chapter) => training.indexOf(`\nCHAPTER ${chapter}. `, 6000));
  expect(chapters).toEqual([...chapters].sort((a, b) => a - b));
  expect(chapters[0]).toBeGreaterThan(0);
});
