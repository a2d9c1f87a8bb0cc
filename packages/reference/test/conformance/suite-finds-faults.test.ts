import { type ConformanceResult, runConformance } from "@flash-moe/reference/conformance";
import { describe, expect, it } from "vitest";
import { callFaults } from "./faults/calls.js";
import { deviceFaults } from "./faults/device.js";
import { numericFaults } from "./faults/numeric.js";
import { selectionFaults } from "./faults/selection.js";
import { openWrapped } from "./wrapped-backend.js";

const failures = (results: readonly ConformanceResult[]): string[] =>
  results.filter(({ status }) => status === "failed").map(({ id }) => id);

describe.each([
  ["numbers", numericFaults],
  ["calls", callFaults],
  ["selection", selectionFaults],
  ["device", deviceFaults],
])("the suite finds faults in %s", (_, faults) => {
  it.each(faults)("$name", async ({ change, cases, found, hangs }) => {
    const { results } = await runConformance(() => openWrapped(change), {
      filter: (id) => cases.test(id),
      ...(hangs && { caseMilliseconds: 500 }),
    });
    expect(failures(results)).toEqual(expect.arrayContaining([...found]));
  });
});

it("finds nothing where there is nothing to find, also behind a queue", async () => {
  const { results, ok } = await runConformance(() => openWrapped());
  expect(failures(results)).toEqual([]);
  expect(ok).toBe(true);
});
