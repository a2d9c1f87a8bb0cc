/** 1234567 as "1,234,567". */
export function formatCount(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** Three significant digits, without an exponent for what people compare. */
function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

/** 0.873 as "87%". */
export function formatPercent(share: number): string {
  return `${(100 * share).toLocaleString("en-US", { maximumSignificantDigits: 2 })}%`;
}

/** 1610612736 as "1.5 GiB". */
export function formatBytes(bytes: number): string {
  return scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
}

/** 2.5e9, "FLOP/s" as "2.5 GFLOP/s". */
export function formatRate(perSecond: number, unit: string): string {
  return scaled(
    perSecond,
    1000,
    ["", "k", "M", "G", "T", "P"].map((prefix) => prefix + unit),
  );
}

/** 0.00123 as "1.23 ms". */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (seconds >= 1) return `${formatNumber(seconds)} s`;
  return seconds >= 1e-3 ? `${formatNumber(seconds * 1e3)} ms` : `${formatNumber(seconds * 1e6)} us`;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let index = 0;
  let rest = value;
  while (rest >= base && index < units.length - 1) {
    rest /= base;
    index++;
  }
  return `${formatNumber(rest)} ${units[index]}`;
}
