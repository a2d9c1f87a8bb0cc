/** Numbers for people: always in the same few digits, so that a column can be compared at a glance. */

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function formatCount(value: number): string {
  return grouped.format(value);
}

/** 1,024-based, as memory is. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(value >= 1000 ? 4 : 3)} ${units[unit]}`;
}

export function formatMilliseconds(milliseconds: number): string {
  if (milliseconds < 1) return `${formatDigits(milliseconds * 1000)} µs`;
  if (milliseconds < 1000) return `${formatDigits(milliseconds)} ms`;
  return `${formatDigits(milliseconds / 1000)} s`;
}

/** Three significant digits, without an exponent. */
function formatDigits(value: number): string {
  return value >= 100 ? grouped.format(value) : value.toFixed(value >= 10 ? 1 : 2);
}

/** As 1.2 × 10⁻⁷. */
export function formatSmall(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value);
  const [digits, exponent] = value.toExponential(1).split("e");
  const raised = Array.from(String(Number(exponent)), (sign) =>
    sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(sign)],
  ).join("");
  return `${digits} × 10${raised}`;
}

export function formatPercent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
}
