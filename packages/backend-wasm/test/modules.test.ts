import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { generateModules } from "../compile-kernels.mjs";
import { bytesOf } from "../src/module.js";
import { workerSource } from "../src/modules.generated.js";
import { variants } from "./helpers/variants.js";

it("is what assembly/ compiles to", async () => {
  const committed = await readFile(new URL("../src/modules.generated.ts", import.meta.url), "utf8");
  expect(committed === (await generateModules()), "src/modules.generated.ts is old: run `pnpm kernels`").toBe(
    true,
  );
}, 180_000);

it("is under 60 KB compressed, both builds and the worker together", () => {
  const bytes = Buffer.concat([...variants.map((variant) => bytesOf(variant)), Buffer.from(workerSource)]);
  expect(gzipSync(bytes, { level: 9 }).length).toBeLessThan(60_000);
});
