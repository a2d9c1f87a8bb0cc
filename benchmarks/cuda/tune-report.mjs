// What tuning has found, as text.

/**
 * @typedef {{ deviceMicroseconds: number, hostMicroseconds: number }} LaunchCost
 * @typedef {{ device: string, multiprocessors: number, cacheBytes: number, rates: import("./cases.mjs").Rates,
 *   gathers: { tableBytes: number, bytesPerSecond: number }[], launches: Record<string, LaunchCost>,
 *   suggested: Record<string, number> }} DeviceResult
 * @typedef {Partial<DeviceResult> & { about?: object, complete?: boolean,
 *   cases: import("./tune-case.mjs").CaseResult[], errors: { name: string, error: string }[] }} TuneResult
 *   without the device's rates where measuring them failed
 */

/** Output of another way that differs by more than this is wrong, not another order of sums. */
const allowedDifference = 0.05;

/** @param {TuneResult} result */
export function report(result) {
  const { cases, errors } = result;
  return [
    ...(hasRates(result) ? deviceLines(result) : []),
    "",
    "us of the device, cold: as it is; then the best ways, with what the model expected of them",
    ...cases.flatMap(lineOf),
    ...errors.map(({ name, error }) => `${name}: ${error}`),
    "",
    ...(hasRates(result) ? suggestions(cases, result.suggested, result.multiprocessors) : []),
  ].join("\n");
}

/** @param {TuneResult} result @returns {result is TuneResult & DeviceResult} */
function hasRates(result) {
  return result.rates !== undefined;
}

/** @param {DeviceResult} result */
function deviceLines({ device, multiprocessors, cacheBytes, rates, gathers, launches }) {
  const giga = (/** @type {number} */ rate) => `${(rate / 1e9).toFixed(0)} GB/s`;
  const tera = (/** @type {number} */ rate) => `${(rate / 1e12).toFixed(1)} TFLOP/s`;
  return [
    `${device}: ${multiprocessors} multiprocessors, ${(cacheBytes / 2 ** 20).toFixed(0)} MiB of L2`,
    `copy ${giga(rates.copy)}, in the cache ${giga(rates.cache)}; product bf16 ${tera(rates.matmul.bf16)}, f32 ${tera(rates.matmul.f32)}`,
    `rows gathered, by MiB of tables: ${gathers.map(({ tableBytes, bytesPerSecond }) => `${tableBytes / 2 ** 20}: ${giga(bytesPerSecond)}`).join(", ")}`,
    ...Object.entries(launches).map(
      ([name, { deviceMicroseconds, hostMicroseconds }]) =>
        `${name}: ${deviceMicroseconds.toFixed(2)} us of the device, ${hostMicroseconds.toFixed(2)} us of the host`,
    ),
  ];
}

/** @param {import("./tune-case.mjs").CaseResult} found */
function lineOf({ name, ways, expected }) {
  const measured = measuredWays(ways);
  const [usual, ...others] = measured;
  if (usual === undefined) return [`${name}: ${"error" in ways[0] ? ways[0].error : "nothing"}`];
  const text = ({ way, microseconds, difference }) => {
    const prediction = expected[strategyOf(way)];
    const against = prediction === undefined ? "" : ` (${prediction.toFixed(1)})`;
    const wrong = difference <= allowedDifference ? "" : ` WRONG by ${difference.toExponential(1)}`;
    return `${way} ${microseconds.toFixed(1)}${against}${wrong}`;
  };
  const named = others.filter(({ way }) => strategyOf(way) in expected);
  const best = others.toSorted((a, b) => a.microseconds - b.microseconds).slice(0, 3);
  const wrong = others.filter(({ difference }) => !(difference <= allowedDifference));
  const shown = [...new Set([...best, ...named, ...wrong])];
  return [
    `${name}: ${usual.microseconds.toFixed(1)}; ${shown.map(text).join("; ")}`,
    ...slicesOf(measured, expected),
  ];
}

/**
 * The two passes of the sliced way, each by how it was cut.
 *
 * @param {ReturnType<typeof measuredWays>} ways @param {Record<string, number>} expected
 */
function slicesOf(ways, expected) {
  const cut = ways.filter(({ way }) => way.includes("dots_slices="));
  if (cut.length === 0) return [];
  const value = (/** @type {string} */ way, /** @type {string} */ name) =>
    new RegExp(`${name}=(\\w+)`).exec(way)?.[1] ?? "";
  const dots = cut.map(({ way, kernels }) => {
    const slices = value(way, "dots_slices");
    const prediction = expected[`dots_slices=${slices}`]?.toFixed(1) ?? "-";
    return `${slices}x${value(way, "dots_lanes")} ${kernels.expert_dots?.toFixed(1)} (${prediction})`;
  });
  const sums = ["8", "16"].map((lanes) => {
    const those = cut.filter(({ way }) => value(way, "sum_lanes") === lanes);
    const best = Math.min(...those.map(({ kernels }) => kernels.expert_rows_sum ?? Number.NaN));
    return `${lanes} ${best.toFixed(1)} (${expected[`sum_lanes=${lanes}`]?.toFixed(1) ?? "-"})`;
  });
  return [`    dots by slices x lanes: ${dots.join(", ")}; sums by lanes: ${sums.join(", ")}`];
}

/** As the model calls it. @param {string} way */
function strategyOf(way) {
  return way.replace(/^experts(_backward)?=/, "");
}

/** @param {import("./tune-case.mjs").CaseResult["ways"]} ways */
function measuredWays(ways) {
  return ways.flatMap((way) => ("error" in way ? [] : [way]));
}

/**
 * How much longer the chosen ways of the experts take than the best ones, by the rates that they are chosen with.
 *
 * @param {import("./tune-case.mjs").CaseResult[]} cases @param {Record<string, number>} suggested
 * @param {number} multiprocessors
 */
function suggestions(cases, suggested, multiprocessors) {
  /** @type {Map<string, number[]>} */
  const losses = new Map();
  for (const { ways, predictions } of cases) {
    const times = new Map(
      measuredWays(ways)
        .filter(({ way }) => /^experts(_backward)?=\w+$/.test(way))
        .map(({ way, microseconds }) => [strategyOf(way), microseconds]),
    );
    if (times.size === 0) continue;
    const best = Math.min(...times.values());
    for (const [rates, chosen] of Object.entries(predictions)) {
      const loss = (times.get(chosen) ?? best) / best;
      losses.set(rates, [...(losses.get(rates) ?? []), loss]);
    }
  }
  if (losses.size === 0) return [];
  const mean = (/** @type {number[]} */ values) =>
    Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length);
  const line = (/** @type {string} */ rates, /** @type {number[]} */ values) =>
    `${rates || "as it is"}: ${mean(values).toFixed(3)} times the best on average, ${Math.max(...values).toFixed(2)} at worst`;
  const sorted = [...losses].filter(([rates]) => rates !== "").sort(([, a], [, b]) => mean(a) - mean(b));
  const constants = [
    `memory = ${suggested.memory?.toExponential(2)}`,
    `cache = ${(suggested.cache / multiprocessors).toExponential(2)} * multiprocessors`,
    `tensor = ${suggested.tensor?.toExponential(2)}`,
    `plain = ${suggested.plain?.toExponential(2)}`,
    `launch = ${suggested.launch?.toExponential(2)}`,
  ];
  return [
    `measured, for DeviceRates: ${constants.join(", ")}`,
    "what the choice among the experts' strategies costs, by the rates that it is made with:",
    line("", losses.get("") ?? [1]),
    ...sorted.slice(0, 5).map(([rates, values]) => line(rates, values)),
  ];
}
