import { readFileSync } from "node:fs";
import * as core from "@flash-moe/core";
import { expect, it } from "vitest";

const readme = readFileSync(new URL("../../../core/README.md", import.meta.url), "utf8");

it("core's README names every op and every error code", () => {
  for (const op of core.opNames) expect(readme).toContain(`\`${op}\``);
  const errors = readFileSync(new URL("../../../core/src/errors.ts", import.meta.url), "utf8");
  const codes = [...errors.matchAll(/^ {2}\| "(\w+)"/gm)].map(([, code]) => code);
  expect(codes).toHaveLength(11);
  for (const code of codes) expect(readme).toContain(`\`${code}\``);
});
