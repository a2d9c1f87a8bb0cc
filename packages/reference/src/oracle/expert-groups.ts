/** The pairs (token, slot) of every expert in use; pair number = token * k + slot. */
export interface ExpertGroups {
  /** [U]: the experts in use, ascending, each once. */
  ids: Int32Array;
  /** [U + 1]: the pairs of ids[r] are pairs[starts[r]] up to pairs[starts[r + 1]]. */
  starts: Int32Array;
  /** Pair numbers, ascending within an expert. */
  pairs: Int32Array;
}

const digitBits = 11;
const digits = 1 << digitBits;

/**
 * Groups pairs by expert with a stable radix sort, so that sums over an expert's pairs have a fixed
 * order. `ids` is [T, k]; ids outside [0, numExperts) are left out. Memory does not grow with numExperts.
 */
export function groupPairsByExpert(ids: Int32Array, numExperts: number): ExpertGroups {
  let pairs = new Int32Array(ids.length);
  let length = 0;
  for (let pair = 0; pair < ids.length; pair++) {
    if (ids[pair] >= 0 && ids[pair] < numExperts) pairs[length++] = pair;
  }
  pairs = pairs.subarray(0, length);
  let sorted = new Int32Array(length);
  const positions = new Int32Array(digits);
  for (let shift = 0; shift < 31 && (numExperts - 1) >>> shift !== 0; shift += digitBits) {
    positions.fill(0);
    for (let p = 0; p < length; p++) positions[(ids[pairs[p]] >>> shift) & (digits - 1)]++;
    for (let digit = 0, start = 0; digit < digits; digit++) {
      const count = positions[digit];
      positions[digit] = start;
      start += count;
    }
    for (let p = 0; p < length; p++) sorted[positions[(ids[pairs[p]] >>> shift) & (digits - 1)]++] = pairs[p];
    [pairs, sorted] = [sorted, pairs];
  }

  const used = new Int32Array(length);
  const starts = new Int32Array(length + 1);
  let count = 0;
  for (let p = 0; p < length; p++) {
    if (p > 0 && ids[pairs[p]] === ids[pairs[p - 1]]) continue;
    used[count] = ids[pairs[p]];
    starts[count++] = p;
  }
  starts[count] = length;
  return { ids: used.slice(0, count), starts: starts.slice(0, count + 1), pairs };
}
