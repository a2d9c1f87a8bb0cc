// Packing for the matrix product: a block of a matrix is copied, decoded to f32, into panels that the inner kernel
// then reads from front to back. A panel holds W lines (rows of A, columns of B) over `depth` steps of the inner
// sum: element (line, step) is at step * W + line. Every element is converted once and used many times.

import { load1, load4 } from "./simd";

/** Transposes four vectors, each four steps of one line, and stores them as four steps of four lines. */
@inline
function storeTransposed(target: usize, stride: usize, r0: v128, r1: v128, r2: v128, r3: v128): void {
  const a = v128.shuffle<i32>(r0, r1, 0, 4, 1, 5);
  const b = v128.shuffle<i32>(r2, r3, 0, 4, 1, 5);
  const c = v128.shuffle<i32>(r0, r1, 2, 6, 3, 7);
  const d = v128.shuffle<i32>(r2, r3, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<i64>(a, b, 0, 2));
  v128.store(target + stride, v128.shuffle<i64>(a, b, 1, 3));
  v128.store(target + 2 * stride, v128.shuffle<i64>(c, d, 0, 2));
  v128.store(target + 3 * stride, v128.shuffle<i64>(c, d, 1, 3));
}

@inline
function normalized(v: v128, mean: usize, rstd: usize, at: usize): v128 {
  if (mean == 0) return v;
  return f32x4.mul(f32x4.sub(v, v128.load(mean + at)), v128.load(rstd + at));
}

/**
 * Packs four lines that lie along the steps (A as it is, B transposed) into lanes of panels of `width` lines.
 * `mean` and `rstd` (0: none) are of the steps. Lines from `lines` on repeat the first: nobody reads their results.
 */
function packFourLines<T>(
  source: usize,
  lineStride: usize,
  lines: usize,
  depth: usize,
  target: usize,
  width: usize,
  mean: usize,
  rstd: usize,
): void {
  const s0 = source;
  const s1 = lines > 1 ? source + lineStride : source;
  const s2 = lines > 2 ? source + 2 * lineStride : source;
  const s3 = lines > 3 ? source + 3 * lineStride : source;
  const stride = width * 4;
  let k: usize = 0;
  for (; k + 4 <= depth; k += 4) {
    const at = k * sizeof<T>();
    storeTransposed(
      target + k * stride,
      stride,
      normalized(load4<T>(s0 + at), mean, rstd, k * 4),
      normalized(load4<T>(s1 + at), mean, rstd, k * 4),
      normalized(load4<T>(s2 + at), mean, rstd, k * 4),
      normalized(load4<T>(s3 + at), mean, rstd, k * 4),
    );
  }
  for (; k < depth; k++) {
    const at = k * sizeof<T>();
    const to = target + k * stride;
    const m: f32 = mean == 0 ? 0 : load<f32>(mean + k * 4);
    const r: f32 = mean == 0 ? 1 : load<f32>(rstd + k * 4);
    store<f32>(to, (load1<T>(s0 + at) - m) * r);
    store<f32>(to, (load1<T>(s1 + at) - m) * r, 4);
    store<f32>(to, (load1<T>(s2 + at) - m) * r, 8);
    store<f32>(to, (load1<T>(s3 + at) - m) * r, 12);
  }
}

/** Packs one panel of `width` (4 or 8) lines that lie across the steps (A transposed, B as it is). */
function packAcross<T>(
  source: usize,
  stepStride: usize,
  lines: usize,
  depth: usize,
  target: usize,
  width: usize,
): void {
  const whole = lines < width ? lines : width;
  for (let k: usize = 0; k < depth; k++) {
    const from = source + k * stepStride;
    const to = target + k * width * 4;
    let line: usize = 0;
    for (; line + 4 <= whole; line += 4) v128.store(to + line * 4, load4<T>(from + line * sizeof<T>()));
    for (; line < whole; line++) store<f32>(to + line * 4, load1<T>(from + line * sizeof<T>()));
    for (; line < width; line++) store<f32>(to + line * 4, 0);
  }
}

/**
 * Packs `lines` by `depth` elements into consecutive panels of `width` lines. `leading` is the length of a stored
 * row, in elements; `across`: a stored row is one step of all lines, else all steps of one line.
 */
export function pack<T>(
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  width: usize,
  mean: usize,
  rstd: usize,
): void {
  const rowBytes = leading * sizeof<T>();
  for (let first: usize = 0; first < lines; first += width) {
    const panel = target + first * depth * 4;
    if (across) {
      packAcross<T>(source + first * sizeof<T>(), rowBytes, lines - first, depth, panel, width);
      continue;
    }
    for (let line: usize = 0; line < width && first + line < lines; line += 4) {
      packFourLines<T>(
        source + (first + line) * rowBytes,
        rowBytes,
        lines - first - line,
        depth,
        panel + line * 4,
        width,
        mean,
        rstd,
      );
    }
  }
}

/** `count` elements that lie `stride` elements apart, as f32 in a row; taken as (x - mean) * rstd if `mean` is given. */
export function packLineOf<T>(
  source: usize,
  stride: usize,
  count: usize,
  target: usize,
  mean: usize,
  rstd: usize,
): void {
  for (let k: usize = 0; k < count; k++) {
    let value = load1<T>(source + k * stride * sizeof<T>());
    if (mean != 0) value = (value - load<f32>(mean + k * 4)) * load<f32>(rstd + k * 4);
    store<f32>(target + k * 4, value);
  }
}
