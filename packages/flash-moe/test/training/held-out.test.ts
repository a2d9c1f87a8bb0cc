import { expect, it } from "vitest";
import { heldOutStart } from "../../src/training/held-out.js";

it("is the last tenth, of short texts at least a byte", () => {
  expect(heldOutStart(new Uint8Array(1000))).toBe(900);
  expect(heldOutStart(new Uint8Array(2))).toBe(1);
});
