// The matrix product for a row or two of A, as in generation: B is read once, as it is stored, in the order in which
// it lies in memory. Packing would read and write all of it to use it once.

import { F16, F32 } from "./simd";
import { addFourRows, addRow, dotLines, dotThreeRows } from "./rows";

/**
 * y[columns] (+)= x[inner] op(B); x and y in f32. `b` is [inner, columns], or [columns, inner] with `transposeB`, its rows
 * `leading` elements apart. `sums`: `sumsBytes` of scratch.
 */
export function matvec(
  inner: usize,
  columns: usize,
  x: usize,
  dtypeB: i32,
  b: usize,
  leading: usize,
  transposeB: bool,
  y: usize,
  accumulate: bool,
  sums: usize,
): void {
  if (!accumulate) memory.fill(y, 0, columns * 4);
  if (dtypeB == F32) matvecOf<f32>(inner, columns, x, b, leading, transposeB, y, sums);
  else if (dtypeB == F16) matvecOf<u16>(inner, columns, x, b, leading, transposeB, y, sums);
  else matvecOf<i16>(inner, columns, x, b, leading, transposeB, y, sums);
}

function matvecOf<T>(
  inner: usize,
  columns: usize,
  x: usize,
  b: usize,
  leading: usize,
  transposeB: bool,
  y: usize,
  sums: usize,
): void {
  if (transposeB) dotRows<T>(inner, columns, x, b, leading, y, sums);
  else sumRows<T>(inner, columns, x, b, leading, y);
}

/** y[n] += x . row n of B. */
function dotRows<T>(inner: usize, columns: usize, x: usize, b: usize, leading: usize, y: usize, sums: usize): void {
  // Three rows at a time, each from a third of its own: three streams from front to back, which the processor fetches
  // ahead. Neighbouring rows are too short for that. Where a third has a row less, row 0 stands in.
  const third = (columns + dotLines - 1) / dotLines;
  for (let n: usize = 0; n < third; n++) {
    const n1 = n + third < columns ? n + third : 0;
    const n2 = n + 2 * third < columns ? n + 2 * third : 0;
    const bytes = leading * sizeof<T>();
    dotThreeRows<T>(inner, x, b + n * bytes, b + n1 * bytes, b + n2 * bytes, sums, true, true);
    add(y + n * 4, load<f32>(sums));
    if (n1 > 0) add(y + n1 * 4, load<f32>(sums, 4));
    if (n2 > 0) add(y + n2 * 4, load<f32>(sums, 8));
  }
}

@inline
function add(to: usize, value: f32): void {
  store<f32>(to, load<f32>(to) + value);
}

/** y += sum over k of x[k] row k of B. */
function sumRows<T>(inner: usize, columns: usize, x: usize, b: usize, leading: usize, y: usize): void {
  const rowBytes = leading * sizeof<T>();
  let k: usize = 0;
  for (; k + 4 <= inner; k += 4) {
    const row = b + k * rowBytes;
    const at = x + k * 4;
    addFourRows<T>(
      columns,
      y,
      row,
      row + rowBytes,
      row + 2 * rowBytes,
      row + 3 * rowBytes,
      load<f32>(at),
      load<f32>(at, 4),
      load<f32>(at, 8),
      load<f32>(at, 12),
    );
  }
  for (; k < inner; k++) addRow<T>(columns, y, b + k * rowBytes, load<f32>(x + k * 4));
}
