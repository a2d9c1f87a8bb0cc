// What was measured, as a table: node table.mjs RESULTS. A line for each case and call of the stage cuda: the time of the
// device, cold; how many times the floor that is; and how many times as long the others take.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [results] = process.argv.slice(2);
const read = (/** @type {string} */ name) => {
  const path = join(results, name);
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
};
const ours = read("cuda.json");
const peers = read("peers.json");
const tuned = read("tune.json");
if (ours !== undefined) {
  const { copy, cache, matmul } = ours.rates;
  const tera = (/** @type {number} */ rate) => (rate / 1e12).toFixed(2);
  console.log(
    `copy ${tera(copy)} TB/s, cached ${tera(cache)} TB/s, products ${tera(matmul.bf16)} (bf16) and ${tera(matmul.f32)} (f32) TFLOP/s`,
  );
  for (const row of ours.rows) {
    if (row.error !== undefined) {
      console.log(`${row.name}: ${row.error}`);
      continue;
    }
    const found = peers?.cases.find((/** @type {{ name: string }} */ { name }) => name === row.name);
    for (const [call, { cold, warm, host }] of Object.entries(row.microseconds)) {
      const floor = call === "forward" ? `, ${(cold / row.forwardFloorMicroseconds).toFixed(2)} x floor` : "";
      const others = Object.entries(found?.results ?? {}).map(([name, result]) => {
        const time = result.microseconds?.[call]?.cold;
        return time === undefined
          ? `${name}: ${result.error ?? "-"}`
          : `${name} ${(time / cold).toFixed(1)} x`;
      });
      const told = call === "forward" || call === "backward" ? others : [];
      console.log(
        `${row.name} ${call}: ${cold.toFixed(1)} us (warm ${warm.toFixed(1)}, host ${host.toFixed(1)})${floor}` +
          told.map((text) => `, ${text.slice(0, 60)}`).join(""),
      );
    }
  }
}
for (const [size, microseconds] of Object.entries(peers?.rates.cublasMicroseconds ?? {})) {
  const name = `linear ${size.replaceAll("x", "-")} bf16`;
  // Warm, as cuBLAS was measured; once as it is, and again by Hopper's instruction.
  const ways = (tuned?.cases ?? [])
    .filter((/** @type {{ name: string }} */ found) => found.name.startsWith(name))
    .flatMap((/** @type {{ ways: { way: string, warm?: number }[] }} */ found) => found.ways)
    .filter((/** @type {{ warm?: number }} */ { warm }) => warm !== undefined);
  const best = ways.toSorted((a, b) => a.warm - b.warm)[0];
  const ours = best === undefined ? "not measured" : `${best.warm.toFixed(1)} us by "${best.way}"`;
  console.log(`${name}: cuBLAS ${microseconds.toFixed(1)} us, ours at best ${ours}`);
}
