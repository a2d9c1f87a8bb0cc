import { readFileSync } from "node:fs";
import * as core from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { expect, it } from "vitest";
import { runReadmeExample } from "../../../../tools/test/helpers/readme-example.js";

const readme = readFileSync(new URL("../../../core/README.md", import.meta.url), "utf8");

it("the example of core's README prints what it says", async () => {
  const lines = await runReadmeExample(new URL("../../../core/README.md", import.meta.url), {
    "@flash-moe/core": core,
    "@flash-moe/reference": { reference },
  });
  expect(lines).toEqual([
    [Float32Array.of(1, 5, 4, 11)],
    ["INVALID_ARGUMENT", "linear: b has 6 elements; takes 9"],
  ]);
});

it("core's README names every op and every error code", () => {
  for (const op of core.opNames) expect(readme).toContain(`\`${op}\``);
  const errors = readFileSync(new URL("../../../core/src/errors.ts", import.meta.url), "utf8");
  const codes = [...errors.matchAll(/^ {2}\| "(\w+)"/gm)].map(([, code]) => code);
  expect(codes).toHaveLength(11);
  for (const code of codes) expect(readme).toContain(`\`${code}\``);
});
