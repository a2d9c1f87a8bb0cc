import * as referencePackage from "@flash-moe/reference";
import { expect, it } from "vitest";
import { runReadmeExample } from "../../../tools/test/helpers/readme-example.js";
import * as router from "../src/index.js";

it("the example of the README does what it says", async () => {
  const printed = await runReadmeExample(new URL("../README.md", import.meta.url), {
    "@flash-moe/reference": referencePackage,
    "@flash-moe/router": router,
  });
  const [[ids], gradients, [used]] = printed as [[Int32Array], unknown[], [number]];
  expect(ids).toHaveLength(12);
  expect(gradients).toEqual([[3, 16], ["router_gate.weight"]]);
  expect(used).toBe(new Set(ids).size);
});
