// Packing for the matrix product: a block of a matrix is copied, decoded to f32, into panels that the inner kernel
// then reads from front to back. A panel holds up to 8 lines (rows of A, columns of B) over `depth` steps of the inner
// sum: element (line, step) is at step * 8 + line. In a panel of splats there are up to 4 lines, and element (line, step)
// fills the four lanes from (step * 4 + line) * 4 on. Every element is converted once and used many times.

import { load1, load4 } from "./simd";

const width: usize = 8;
const stepBytes: usize = width * 4;
const splatLines: usize = 4;
const splatStepBytes: usize = splatLines * 16;

/** Transposes four vectors, each four steps of one line, and stores them as four steps of four lines. */
@inline
function storeTransposed(target: usize, r0: v128, r1: v128, r2: v128, r3: v128): void {
  const a = v128.shuffle<i32>(r0, r1, 0, 4, 1, 5);
  const b = v128.shuffle<i32>(r2, r3, 0, 4, 1, 5);
  const c = v128.shuffle<i32>(r0, r1, 2, 6, 3, 7);
  const d = v128.shuffle<i32>(r2, r3, 2, 6, 3, 7);
  v128.store(target, v128.shuffle<i64>(a, b, 0, 2));
  v128.store(target, v128.shuffle<i64>(a, b, 1, 3), stepBytes);
  v128.store(target, v128.shuffle<i64>(c, d, 0, 2), 2 * stepBytes);
  v128.store(target, v128.shuffle<i64>(c, d, 1, 3), 3 * stepBytes);
}

/** (v - mean) * rstd, of the steps from `at` bytes on. */
@inline
function normalized(v: v128, mean: usize, rstd: usize, at: usize): v128 {
  return f32x4.mul(f32x4.sub(v, v128.load(mean + at)), v128.load(rstd + at));
}

/**
 * Packs four lines that lie along the steps (A as it is, B transposed) into lanes of a panel.
 * `mean` and `rstd` (0: none) are of the steps. Lines from `lines` on repeat the first: nobody reads their results.
 */
function packFourLines<T>(
  source: usize,
  lineStride: usize,
  lines: usize,
  depth: usize,
  target: usize,
  mean: usize,
  rstd: usize,
): void {
  let s0 = source;
  let s1 = lines > 1 ? source + lineStride : source;
  let s2 = lines > 2 ? source + 2 * lineStride : source;
  let s3 = lines > 3 ? source + 3 * lineStride : source;
  const bytes: usize = 4 * sizeof<T>();
  const end = target + (depth & ~3) * stepBytes;
  let at: usize = 0;
  // Two loops: with the question in one, half of its instructions would be about that.
  if (mean == 0) {
    for (; target < end; target += 4 * stepBytes) {
      storeTransposed(target, load4<T>(s0), load4<T>(s1), load4<T>(s2), load4<T>(s3));
      s0 += bytes;
      s1 += bytes;
      s2 += bytes;
      s3 += bytes;
    }
  } else {
    for (; target < end; target += 4 * stepBytes) {
      storeTransposed(
        target,
        normalized(load4<T>(s0), mean, rstd, at),
        normalized(load4<T>(s1), mean, rstd, at),
        normalized(load4<T>(s2), mean, rstd, at),
        normalized(load4<T>(s3), mean, rstd, at),
      );
      s0 += bytes;
      s1 += bytes;
      s2 += bytes;
      s3 += bytes;
      at += 16;
    }
  }
  for (let k: usize = 0; k < (depth & 3); k++) {
    const from = k * sizeof<T>();
    const m: f32 = mean == 0 ? 0 : load<f32>(mean + at + k * 4);
    const r: f32 = mean == 0 ? 1 : load<f32>(rstd + at + k * 4);
    store<f32>(target, (load1<T>(s0 + from) - m) * r);
    store<f32>(target, (load1<T>(s1 + from) - m) * r, 4);
    store<f32>(target, (load1<T>(s2 + from) - m) * r, 8);
    store<f32>(target, (load1<T>(s3 + from) - m) * r, 12);
    target += stepBytes;
  }
}

/** Packs one panel of lines that lie across the steps (A transposed, B as it is). */
function packAcross<T>(
  source: usize,
  stepStride: usize,
  lines: usize,
  depth: usize,
  target: usize,
): void {
  const whole = lines < width ? lines : width;
  for (let k: usize = 0; k < depth; k++) {
    const from = source + k * stepStride;
    const to = target + k * stepBytes;
    let line: usize = 0;
    for (; line + 4 <= whole; line += 4) v128.store(to + line * 4, load4<T>(from + line * sizeof<T>()));
    for (; line < whole; line++) store<f32>(to + line * 4, load1<T>(from + line * sizeof<T>()));
    for (; line < width; line++) store<f32>(to + line * 4, 0);
  }
}

/**
 * Packs `lines` by `depth` elements into consecutive panels. `leading` is the length of a stored
 * row, in elements; `across`: a stored row is one step of all lines, else all steps of one line.
 */
export function pack<T>(
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  mean: usize,
  rstd: usize,
): void {
  const rowBytes = leading * sizeof<T>();
  for (let first: usize = 0; first < lines; first += width) {
    const panel = target + first * depth * 4;
    if (across) {
      packAcross<T>(source + first * sizeof<T>(), rowBytes, lines - first, depth, panel);
      continue;
    }
    for (let line: usize = 0; line < width && first + line < lines; line += 4) {
      packFourLines<T>(
        source + (first + line) * rowBytes,
        rowBytes,
        lines - first - line,
        depth,
        panel + line * 4,
        mean,
        rstd,
      );
    }
  }
}

/** Each lane of `v` in all four lanes, `stride` bytes apart. */
@inline
function storeSplats(target: usize, stride: usize, v: v128): void {
  v128.store(target, v128.shuffle<i32>(v, v, 0, 0, 0, 0));
  v128.store(target + stride, v128.shuffle<i32>(v, v, 1, 1, 1, 1));
  v128.store(target + 2 * stride, v128.shuffle<i32>(v, v, 2, 2, 2, 2));
  v128.store(target + 3 * stride, v128.shuffle<i32>(v, v, 3, 3, 3, 3));
}

/** Packs up to four lines into a panel of splats, as `pack` does. Lines that are missing hold anything. */
export function packSplats<T>(
  source: usize,
  leading: usize,
  across: bool,
  lines: usize,
  depth: usize,
  target: usize,
  mean: usize,
  rstd: usize,
): void {
  const rowBytes = leading * sizeof<T>();
  if (across) {
    for (let k: usize = 0; k < depth; k++) {
      const from = source + k * rowBytes;
      const to = target + k * splatStepBytes;
      if (lines == splatLines) {
        storeSplats(to, 16, load4<T>(from));
      } else {
        for (let line: usize = 0; line < lines; line++) {
          v128.store(to + line * 16, f32x4.splat(load1<T>(from + line * sizeof<T>())));
        }
      }
    }
    return;
  }
  for (let line: usize = 0; line < lines; line++) {
    const from = source + line * rowBytes;
    const to = target + line * 16;
    let k: usize = 0;
    for (; k + 4 <= depth; k += 4) {
      let v = load4<T>(from + k * sizeof<T>());
      if (mean != 0) v = normalized(v, mean, rstd, k * 4);
      storeSplats(to + k * splatStepBytes, splatStepBytes, v);
    }
    for (; k < depth; k++) {
      let value = load1<T>(from + k * sizeof<T>());
      if (mean != 0) value = (value - load<f32>(mean + k * 4)) * load<f32>(rstd + k * 4);
      v128.store(to + k * splatStepBytes, f32x4.splat(value));
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
