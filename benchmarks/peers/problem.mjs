// One layer and one batch, as plain arrays that every library gets: f32, norm "none", silu, square grid.
import { normals } from "../normals.mjs";

/**
 * @typedef {{ tokens: number, hiddenSize: number, numExperts: number, topK: number }} Size
 * @typedef {ReturnType<typeof makeProblem>} Problem
 */

/** The sizes of a benchmark: tokens, hidden size, experts, top-k. The intermediate size is twice the hidden size. */
export function describeSize(/** @type {Size} */ { tokens, hiddenSize, numExperts, topK }) {
  return `T ${tokens}, H ${hiddenSize}, N ${numExperts.toLocaleString("en-US")}, k ${topK}`;
}

/** Weights scaled so that every product is of order one. @param {Size} size */
export function makeProblem(size) {
  const { tokens, hiddenSize, numExperts } = size;
  const keys = Math.sqrt(numExperts);
  const intermediateSize = 2 * hiddenSize;
  const scale = 1 / Math.sqrt(hiddenSize);
  return {
    ...size,
    keys,
    intermediateSize,
    hiddenStates: normals(tokens * hiddenSize, 1),
    gradOutput: normals(tokens * hiddenSize, 2),
    router: normals(2 * keys * hiddenSize, 3, 2 * scale),
    downTable: uniforms(numExperts * hiddenSize, Math.sqrt(3) * scale, 4),
    upTable: uniforms(numExperts * hiddenSize, Math.sqrt(3), 5),
    gate: normals(intermediateSize * hiddenSize, 6, scale),
    up: normals(intermediateSize * hiddenSize, 7, scale),
    down: normals(hiddenSize * intermediateSize, 8, 1 / Math.sqrt(intermediateSize)),
  };
}

/** The transpose of a row-major matrix. @param {Float32Array} matrix @param {number} rows @param {number} columns */
export function transpose(matrix, rows, columns) {
  const result = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = matrix[row * columns + column];
    }
  }
  return result;
}

/** Cheaper than normal numbers: the tables hold up to half a billion. */
function uniforms(/** @type {number} */ length, /** @type {number} */ bound, /** @type {number} */ seed) {
  const values = new Float32Array(length);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let index = 0; index < length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    values[index] = ((state >>> 0) / 2 ** 31 - 1) * bound;
  }
  return values;
}
