import { expect, it } from "vitest";
import { contextIds } from "../../src/language-model/contexts.js";

const text = Uint8Array.of(5, 6, 7, 8);

it("names the bytes before a position, the nearest first, each by its distance", () => {
  expect([...contextIds(text, [3], 3)]).toEqual([7, 256 + 6, 512 + 5]);
});

it("never sees the byte that it is to predict", () => {
  const changed = Uint8Array.of(5, 6, 7, 99);
  expect(contextIds(changed, [3], 3)).toEqual(contextIds(text, [3], 3));
});

it("reads line breaks before the beginning and takes the end of the text as a position", () => {
  expect([...contextIds(text, [0, 1, 4], 2)]).toEqual([10, 256 + 10, 5, 256 + 10, 8, 256 + 7]);
});
