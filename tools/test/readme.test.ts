import * as flashMoe from "flash-moe";
import { expect, it } from "vitest";
import { runReadmeExample } from "./helpers/readme-example.js";

it("the example of the README does what it says", async () => {
  const readme = new URL("../../README.md", import.meta.url);
  expect(await runReadmeExample(readme, { "flash-moe": flashMoe })).toEqual([[512], [6], ["reference"]]);
});
