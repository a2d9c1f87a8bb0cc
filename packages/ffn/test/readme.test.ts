import * as referencePackage from "@flash-moe/reference";
import { expect, it } from "vitest";
import { runReadmeExample } from "../../../tools/test/helpers/readme-example.js";
import * as ffn from "../src/index.js";

it("the example of the README does what it says", async () => {
  const printed = await runReadmeExample(new URL("../README.md", import.meta.url), {
    "@flash-moe/reference": referencePackage,
    "@flash-moe/ffn": ffn,
  });
  expect(printed).toEqual([[[2, 16]], [Int32Array.of(7, 41, 99_999)]]);
});
