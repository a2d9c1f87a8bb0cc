import type { Backend, FloatDType } from "@flash-moe/core";
import { formatBytes, formatCount, formatPercent, formatRate, formatSeconds } from "../format.js";
import { longName } from "../layer-options.js";
import { formatTable } from "../table.js";
import type { DeviceRates } from "./device-rates.js";
import type { BenchRow } from "./suite.js";

/** The measurements as a table. */
export function describeBench(
  backend: Backend,
  dtype: FloatDType,
  preset: string,
  device: DeviceRates,
  rows: readonly BenchRow[],
): string {
  const header = [
    "tokens",
    "top-k",
    "experts",
    "hidden",
    "op",
    "time",
    "calls",
    "bytes",
    "of copy",
    "operations",
    "of matmul",
  ];
  const body = rows.flatMap((row) => {
    if ("skipped" in row) return [];
    const { tokens, topK, keysX, keysY, hiddenSize, op } = row;
    const about = [tokens, topK, keysX * keysY, hiddenSize].map(formatCount);
    return [
      [
        ...about,
        op,
        formatSeconds(row.seconds),
        formatCount(row.calls),
        formatRate(row.bytesPerSecond, "B/s"),
        formatPercent(row.copyFraction),
        formatRate(row.flopsPerSecond, "FLOP/s"),
        formatPercent(row.matmulFraction),
      ],
    ];
  });
  return [
    `${backend.name} on ${backend.device}, ${longName(dtype)}, preset ${preset}\n` +
      `copy ${formatRate(device.copyBytesPerSecond, "B/s")} (${formatBytes(device.copyBytes)}), ` +
      `matrix product ${formatRate(device.matmulFlopsPerSecond, "FLOP/s")} (${device.matmulSize} x ${device.matmulSize})\n`,
    formatTable([header, ...body], "rrrrlrrrrrr"),
    ...describeSkipped(rows),
  ].join("\n");
}

/** A line for each size. */
function describeSkipped(rows: readonly BenchRow[]): string[] {
  const opsBySize = new Map<string, string[]>();
  for (const row of rows) {
    if (!("skipped" in row)) continue;
    const { tokens, topK, keysX, keysY, op, skipped, predictedSeconds } = row;
    const size = `${formatCount(tokens)} tokens, top ${formatCount(topK)} of ${formatCount(keysX * keysY)}`;
    const why = predictedSeconds === undefined ? skipped : `about ${formatSeconds(predictedSeconds)} a call`;
    opsBySize.set(size, [...(opsBySize.get(size) ?? []), `${op} (${why})`]);
  }
  if (opsBySize.size === 0) return [];
  const lines = [...opsBySize].map(([size, ops]) => `  ${size}: ${ops.join(", ")}\n`);
  return [
    `skipped, as they take longer than --seconds at the best rate so far, or do not fit:\n${lines.join("")}`,
  ];
}
