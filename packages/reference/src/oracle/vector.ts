/**
 * `sum_h a[aStart + h] * b[bStart + h]`.
 *
 * Four partial sums (h modulo 4) added as (s0 + s1) + (s2 + s3): independent additions keep the
 * processor busy, and the order depends on `length` alone.
 */
export function dot(
  a: Float64Array,
  aStart: number,
  b: Float64Array,
  bStart: number,
  length: number,
): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let h = 0;
  for (; h + 3 < length; h += 4) {
    s0 += a[aStart + h] * b[bStart + h];
    s1 += a[aStart + h + 1] * b[bStart + h + 1];
    s2 += a[aStart + h + 2] * b[bStart + h + 2];
    s3 += a[aStart + h + 3] * b[bStart + h + 3];
  }
  for (; h < length; h++) s0 += a[aStart + h] * b[bStart + h];
  return s0 + s1 + (s2 + s3);
}

/** `target[targetStart + h] += scale * source[sourceStart + h]` for h below `length`. */
export function addScaled(
  target: Float64Array,
  targetStart: number,
  scale: number,
  source: Float64Array,
  sourceStart: number,
  length: number,
): void {
  for (let h = 0; h < length; h++) target[targetStart + h] += scale * source[sourceStart + h];
}
