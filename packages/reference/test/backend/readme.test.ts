import * as packageExports from "@flash-moe/reference";
import { expect, test } from "vitest";
import { runReadmeExample } from "../../../../tools/test/helpers/readme-example.js";

test("the example of the README runs and prints what it says", async () => {
  const printed = await runReadmeExample(new URL("../../README.md", import.meta.url), {
    "@flash-moe/reference": packageExports,
  });
  const [ids, weights, memory] = printed.flat() as [Int32Array, Float32Array, { liveBytes: number }];
  expect([...ids]).toEqual([19, 18, 14, 2, 3, 0]);
  for (const token of [0, 1]) {
    const sum = weights.subarray(3 * token, 3 * token + 3).reduce((total, weight) => total + weight);
    expect(sum).toBeCloseTo(1, 6);
  }
  expect(memory.liveBytes).toBe(4 * (18 + 6 + 6));
});
