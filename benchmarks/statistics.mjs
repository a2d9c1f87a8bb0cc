/** @param {number[]} values */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * The e of y = c x^e that fits best: the slope of the least-squares line through the logarithms.
 *
 * @param {number[]} x
 * @param {number[]} y
 */
export function fitExponent(x, y) {
  const a = x.map(Math.log);
  const b = y.map(Math.log);
  const meanA = a.reduce((sum, value) => sum + value, 0) / a.length;
  const meanB = b.reduce((sum, value) => sum + value, 0) / b.length;
  let covariance = 0;
  let variance = 0;
  for (let i = 0; i < a.length; i++) {
    covariance += (a[i] - meanA) * (b[i] - meanB);
    variance += (a[i] - meanA) ** 2;
  }
  return covariance / variance;
}
