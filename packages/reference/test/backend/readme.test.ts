import { readFileSync } from "node:fs";
import * as packageExports from "@flash-moe/reference";
import { expect, test } from "vitest";

test("the example of the README runs and prints what it says", async () => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const code = /^```js\n([\s\S]*?)^```/m.exec(readme)?.[1] ?? "";
  const body = code.replace(/^import (\{.*\}) from "@flash-moe\/reference";$/m, "const $1 = packageExports;");
  expect(body).not.toMatch(/^import /m);
  const printed: unknown[] = [];
  const AsyncFunction = (async () => {}).constructor as FunctionConstructor;
  await new AsyncFunction("packageExports", "console", body)(packageExports, {
    log: (value: unknown) => printed.push(value),
  });
  const [ids, weights, memory] = printed as [Int32Array, Float32Array, { liveBytes: number }];
  expect([...ids]).toEqual([19, 18, 14, 2, 3, 0]);
  for (const token of [0, 1]) {
    const sum = weights.subarray(3 * token, 3 * token + 3).reduce((total, weight) => total + weight);
    expect(sum).toBeCloseTo(1, 6);
  }
  expect(memory.liveBytes).toBe(4 * (18 + 6 + 6));
});
