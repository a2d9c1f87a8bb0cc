import { SeededRandom } from "@flash-moe/core";

/** Normal numbers, the same on every run. @param {number} length @param {number} seed */
export function normals(length, seed, deviation = 1) {
  const random = new SeededRandom(seed);
  return Float32Array.from({ length }, () => deviation * random.normal());
}
