const largestFloat32 = 3.4028234663852886e38;

/** The best keys of one axis: `logits[r]` (clamped) and `keys[r]` of the key with rank r, counted from 0. */
interface AxisRanking {
  readonly logits: Float32Array;
  readonly keys: Int32Array;
  /** Ranks the axis whose logits start at `start`. */
  rank(source: Float32Array, start: number): void;
}

/** For the selection alone: the finite f32 range, and NaN as its lowest value. */
function clampLogit(logit: number): number {
  // Written so that NaN, which compares false, takes the second branch.
  return logit > -largestFloat32 ? Math.min(logit, largestFloat32) : -largestFloat32;
}

/**
 * Ranks the best `count` of `size` keys by (clamped logit descending, index ascending).
 *
 * Keys are read in the order of their index into a buffer; when it is full, it is sorted and cut to the
 * best `count`, and from then on only logits above the last of them can enter. A stable sort keeps equal
 * logits in the order of their index.
 */
export function createAxisRanking(size: number, count: number): AxisRanking {
  const capacity = Math.min(size, 2 * count);
  const logits = new Float32Array(capacity);
  const keys = new Int32Array(capacity);
  const sort = createStableSort(logits, keys);
  return {
    logits,
    keys,
    rank(source, start) {
      let filled = 0;
      let bound = Number.NEGATIVE_INFINITY;
      for (let key = 0; key < size; key++) {
        if (filled === capacity) {
          sort(filled);
          filled = count;
          bound = logits[count - 1];
        }
        const logit = clampLogit(source[start + key]);
        if (!(logit > bound)) continue;
        logits[filled] = logit;
        keys[filled] = key;
        filled++;
      }
      sort(filled);
    },
  };
}

/** Sorts the first `length` entries of both arrays by logit, descending and stable: a bottom-up merge sort. */
function createStableSort(logits: Float32Array, keys: Int32Array): (length: number) => void {
  const spareLogits = new Float32Array(logits.length);
  const spareKeys = new Int32Array(keys.length);
  const runLength = 16;
  return (length) => {
    for (let start = 0; start < length; start += runLength) {
      sortRun(logits, keys, start, Math.min(start + runLength, length));
    }
    for (let width = runLength; width < length; width *= 2) {
      for (let start = 0; start + width < length; start += 2 * width) {
        const middle = start + width;
        const end = Math.min(middle + width, length);
        if (logits[middle - 1] >= logits[middle]) continue;
        for (let i = start; i < middle; i++) {
          spareLogits[i] = logits[i];
          spareKeys[i] = keys[i];
        }
        // The right half is merged in place: the write position never passes the read position.
        for (let left = start, right = middle, at = start; left < middle; at++) {
          if (right < end && logits[right] > spareLogits[left]) {
            logits[at] = logits[right];
            keys[at] = keys[right++];
          } else {
            logits[at] = spareLogits[left];
            keys[at] = spareKeys[left++];
          }
        }
      }
    }
  };
}

/** Insertion sort of the entries from `start` up to `end`. */
function sortRun(logits: Float32Array, keys: Int32Array, start: number, end: number): void {
  for (let i = start + 1; i < end; i++) {
    const logit = logits[i];
    const key = keys[i];
    let at = i;
    for (; at > start && logits[at - 1] < logit; at--) {
      logits[at] = logits[at - 1];
      keys[at] = keys[at - 1];
    }
    logits[at] = logit;
    keys[at] = key;
  }
}
