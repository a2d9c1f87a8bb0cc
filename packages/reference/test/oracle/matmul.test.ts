import { expect, test } from "vitest";
import { type MatmulShape, matmul } from "../../src/oracle/index.js";
import { expectGradient, inner } from "./finite-differences.js";
import { createRandom, normals } from "./random.js";

/** The triple loop. */
function naiveMatmul(a: Float64Array, b: Float64Array, shape: MatmulShape): Float64Array {
  const { rows, inner: depth, columns, transposeA, transposeB } = shape;
  const output = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      let sum = 0;
      for (let p = 0; p < depth; p++) {
        sum += a[transposeA ? p * rows + r : r * depth + p] * b[transposeB ? c * depth + p : p * columns + c];
      }
      output[r * columns + c] = sum;
    }
  }
  return output;
}

const shapes: [rows: number, inner: number, columns: number][] = [
  [1, 1, 1],
  [1, 7, 5],
  [4, 4, 4],
  [5, 3, 2],
  [7, 256, 9],
  [8, 257, 12],
  [3, 700, 6],
  [33, 64, 31],
  [0, 3, 4],
  [3, 0, 4],
  [3, 4, 0],
];

test.each(shapes)(
  "%i x %i x %i has the bits of the triple loop, with every transpose",
  (rows, depth, columns) => {
    const random = createRandom(rows * 10_000 + depth * 100 + columns);
    const a = normals(random, rows * depth);
    const b = normals(random, depth * columns);
    for (const transposeA of [false, true]) {
      for (const transposeB of [false, true]) {
        const shape = { rows, inner: depth, columns, transposeA, transposeB };
        expect(matmul(a, b, shape)).toEqual(naiveMatmul(a, b, shape));
      }
    }
  },
);

test("an output has the same bits wherever its row and column lie", () => {
  const random = createRandom(1);
  const a = normals(random, 9 * 50);
  const b = normals(random, 50 * 9);
  const whole = matmul(a, b, { rows: 9, inner: 50, columns: 9, transposeB: true });
  for (let r = 0; r < 9; r++) {
    const row = matmul(a.subarray(r * 50, (r + 1) * 50), b, {
      rows: 1,
      inner: 50,
      columns: 9,
      transposeB: true,
    });
    expect(row).toEqual(whole.subarray(r * 9, (r + 1) * 9));
  }
});

test("takes float32 arrays and computes in float64", () => {
  const a = new Float32Array([1, 2 ** -30]);
  const b = new Float32Array([1, 1]);
  expect(matmul(a, b, { rows: 1, inner: 2, columns: 1 })).toEqual(new Float64Array([1 + 2 ** -30]));
});

test("infinities and NaN stay in their rows and columns", () => {
  const a = new Float64Array([Infinity, 1, 2, 3, 4, 5]);
  const b = new Float64Array([1, NaN, 1]);
  const product = matmul(a, b, { rows: 6, inner: 1, columns: 3 });
  for (let r = 0; r < 6; r++) expect([...product.subarray(r * 3, r * 3 + 3)]).toEqual([a[r], NaN, a[r]]);
});

test("the gradients of a linear layer are matmuls too", () => {
  const random = createRandom(2);
  const [rows, depth, columns] = [5, 6, 7];
  const x = normals(random, rows * depth);
  const weight = normals(random, columns * depth);
  const cotangent = normals(random, rows * columns);
  const forward = { rows, inner: depth, columns, transposeB: true };
  const loss = () => inner(matmul(x, weight, forward), cotangent);
  expectGradient("x", loss, x, matmul(cotangent, weight, { rows, inner: columns, columns: depth }));
  expectGradient(
    "weight",
    loss,
    weight,
    matmul(cotangent, x, { rows: columns, inner: rows, columns: depth, transposeA: true }),
  );
});
