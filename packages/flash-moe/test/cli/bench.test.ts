import { afterAll, beforeAll, expect, it } from "vitest";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeAll(async () => {
  shell = await Shell.open();
});
afterAll(() => shell.close());

interface Bench {
  readonly dtype: string;
  readonly copyBytesPerSecond: number;
  readonly matmulFlopsPerSecond: number;
  readonly rows: readonly Row[];
}

interface Row {
  readonly op: string;
  readonly tokens: number;
  readonly seconds?: number;
  readonly fastestSeconds?: number;
  readonly calls?: number;
  readonly bytesPerSecond?: number;
  readonly copyFraction?: number;
  readonly flopsPerSecond?: number;
  readonly matmulFraction?: number;
  readonly skipped?: string;
}

it("measures every op at every size, or says why not", async () => {
  const bench = (await shell.json("bench --backend reference --seconds 0.002")) as unknown as Bench;
  expect(bench.dtype).toBe("float32");
  expect(bench.copyBytesPerSecond).toBeGreaterThan(0);
  expect(bench.matmulFlopsPerSecond).toBeGreaterThan(0);
  const ops = ["router", "experts", "mlp", "layer", "layer backward"];
  expect(bench.rows.map(({ op, tokens }) => `${op} ${tokens}`)).toEqual(
    [1, 64, 1024].flatMap((tokens) => ops.map((op) => `${op} ${tokens}`)),
  );
  for (const row of bench.rows) {
    if (row.skipped !== undefined) {
      expect(row.skipped).toMatch(/^one call would take about .*--seconds is 0\.002$/);
      continue;
    }
    expect(row.seconds).toBeGreaterThanOrEqual(row.fastestSeconds ?? Number.NaN);
    expect(row.calls).toBeGreaterThanOrEqual(1);
    expect(row.copyFraction).toBeCloseTo((row.bytesPerSecond ?? 0) / bench.copyBytesPerSecond, 12);
    expect(row.matmulFraction).toBeCloseTo((row.flopsPerSecond ?? 0) / bench.matmulFlopsPerSecond, 12);
  }
  // One token through 32 experts takes microseconds; a thousand through the whole layer does not.
  expect(bench.rows.find(({ op, tokens }) => op === "experts" && tokens === 1)?.skipped).toBeUndefined();
  expect(
    bench.rows.find(({ op, tokens }) => op === "layer backward" && tokens === 1024)?.skipped,
  ).toBeDefined();
});
