// What was measured, as a table: node table.mjs RESULTS. A line for each case and call of the stage cuda: the time of the
// device, cold; how many times the floor that is; how many times as long the others take; the forward's error; and memory.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { forwardFloor } from "../../benchmarks/cuda/cases.mjs";
import { readCommandLine } from "../lib/command-line.mjs";

const [results] = readCommandLine(import.meta.url, {}, ["RESULTS"]).positionals;
/** Others are measured once, beside ours as it is. */
let latestPeers;
for (const folder of [results, join(results, "with-peers"), join(results, "wgmma")]) {
  const read = (/** @type {string} */ name) => {
    const path = join(folder, name);
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  };
  const ours = read("cuda.json");
  if (ours === undefined) continue;
  const how = folder === results ? "" : `, ${folder.slice(results.length + 1)}`;
  console.log(`\n${ours.device || "no device"}${how}`);
  latestPeers = read("peers.json") ?? latestPeers;
  print(ours, latestPeers, read("tune.json"));
}

function print(ours, peers, tuned) {
  const rates = bestRates(ours, peers, tuned);
  if (rates !== undefined) {
    const tera = (/** @type {number} */ rate) => (rate / 1e12).toFixed(2);
    const { copy, cache, matmul } = rates;
    console.log(
      `floors by the best of all that was measured: copy ${tera(copy)} TB/s, cached ${tera(cache)} TB/s, ` +
        `products ${tera(matmul.bf16)} (bf16) and ${tera(matmul.f32)} (f32) TFLOP/s`,
    );
  }
  for (const row of ours.rows) {
    if (row.error !== undefined) {
      console.log(`${row.name}: ${row.error}`);
      continue;
    }
    const found = peers?.cases.find((/** @type {{ name: string }} */ { name }) => name === row.name);
    for (const [call, { cold, warm, host }] of Object.entries(row.microseconds)) {
      const facts = [`${cold.toFixed(1)} us (warm ${warm.toFixed(1)}, host ${host.toFixed(1)})`];
      if (call === "forward") {
        if (rates !== undefined)
          facts.push(`${(cold / (1e6 * forwardFloor(row, rates))).toFixed(2)} x floor`);
        for (const [name, { norm }] of Object.entries(found?.ourErrors ?? {}))
          facts.push(`${name} off by ${typeof norm === "number" ? (100 * norm).toFixed(3) : norm} %`);
        facts.push(
          `${((row.peakBytes - row.inputBytes) / 2 ** 20).toFixed(0)} MiB beside the inputs at most`,
        );
      }
      if (call === "forward" || call === "backward")
        for (const [name, result] of Object.entries(found?.results ?? {}))
          facts.push(`${name}: ${beside(result, call, cold)}`);
      console.log(`${row.name} ${call}: ${facts.join(", ")}`);
    }
  }
  for (const [name, why] of Object.entries(peers?.absent ?? {})) console.log(`${name} did not load: ${why}`);
  for (const problem of [...ours.problems, ...(peers?.problems ?? [])]) console.log(problem);
  printProducts(ours, peers, tuned);
}

/** How many times as long another took, or why that is not known. */
function beside(result, call, cold) {
  const time = result.microseconds?.[call]?.cold;
  if (time !== undefined) return `${(time / cold).toFixed(2)} x`;
  if (result.wrong?.length > 0) return `WRONG, ${result.wrong.join(", ")}`.slice(0, 90);
  const why = result.error ?? (call === "backward" ? result.backward : undefined);
  return why === undefined ? "-" : `cannot, ${why}`.slice(0, 90);
}

/** What no implementation can beat must not come from ours alone. */
function bestRates(ours, peers, tuned) {
  if (!ours.rates) return undefined;
  const others = peers?.rates ?? {};
  const most = (/** @type {unknown[]} */ ...values) =>
    Math.max(...values.filter((value) => typeof value === "number"));
  const cached = Object.entries(others).flatMap(([name, rate]) => (name.endsWith("cached") ? [rate] : []));
  const gathers = (tuned?.gathers ?? []).map(({ bytesPerSecond }) => bytesPerSecond);
  return {
    copy: most(ours.rates.copy, others.copy),
    cache: most(ours.rates.cache, ...cached, ...gathers),
    matmul: {
      bf16: most(ours.rates.matmul.bf16, others.matmul?.bf16),
      f32: most(ours.rates.matmul.f32, others.matmul?.f32),
    },
  };
}

/** Products alone, warm: as they are, the best way that tuning found, and cuBLAS by way of PyTorch. */
function printProducts(ours, peers, tuned) {
  for (const row of ours.rows) {
    if (row.kind !== "linear" || row.error !== undefined) continue;
    const size = `${row.tokens}-${row.hidden}-${row.inner}`;
    const ways = (tuned?.cases ?? [])
      .filter(({ name }) => name.startsWith(`linear ${size} ${row.dtype}`))
      .flatMap((found) => found.ways)
      .filter(({ warm, difference }) => warm !== undefined && difference <= 0.05);
    const best = ways.toSorted((a, b) => a.warm - b.warm)[0];
    const other = peers?.cases.find(({ name }) => name === row.name)?.results["PyTorch eager"];
    const cublas = other?.microseconds?.forward.warm;
    console.log(
      `product ${size} ${row.dtype}, warm: ours ${row.microseconds.forward.warm.toFixed(1)} us` +
        `${best === undefined ? "" : `, at best ${best.warm.toFixed(1)} us by "${best.way}"`}` +
        `, cuBLAS ${cublas === undefined ? "not measured" : `${cublas.toFixed(1)} us`}`,
    );
  }
}
