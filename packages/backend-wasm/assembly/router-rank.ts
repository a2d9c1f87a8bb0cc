// The best keys of one axis, sorted: what the selection of pairs starts from.
//
// A key is held as one u64 that sorts as it should: above, the clamped logit with its bits turned into an unsigned
// number of the same order; below, the complement of the index, so that of equal logits the lower index is larger.
// Keys are read into a buffer of twice as many as are wanted; when it is full it is cut to the best half, and from then
// on four logits at a time are compared with the last that is still in, and mostly passed over. Only what is left in
// the end is sorted.

const largest: f32 = 3.4028234663852886e38;
/** Below this length a sort by insertion is fastest. */
const runLength: usize = 16;

/** For the selection alone: the finite range, NaN as its lowest value, and one zero. */
@inline
function clampLogit(logit: f32): f32 {
  if (!(logit > -largest)) return -largest;
  return logit > largest ? largest : logit + 0;
}

/** Larger for larger numbers (no NaN, no -0). */
@inline
export function orderedBits(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  return bits ^ (<u32>(<i32>bits >> 31) | 0x80000000);
}

@inline
export function fromOrderedBits(bits: u32): f32 {
  return reinterpret<f32>(bits ^ (<u32>(<i32>~bits >> 31) | 0x80000000));
}

@inline
function entry(logit: f32, key: usize): u64 {
  return (<u64>orderedBits(logit) << 32) | <u64>~(<u32>key);
}

/** The logit (clamped) of a ranked key. */
@inline
export function rankedLogit(ranking: usize, rank: usize): f32 {
  return fromOrderedBits(load<u32>(ranking + rank * 8, 4));
}

/** The index of a ranked key. */
@inline
export function rankedKey(ranking: usize, rank: usize): u32 {
  return ~load<u32>(ranking + rank * 8);
}

/** Entries of the buffer that `rankAxis` takes for the `best` of `size` keys; the spare one is as large. */
@inline
export function rankingCapacity(size: usize, best: usize): usize {
  return size < 2 * best ? size : 2 * best;
}

/** Puts the `best` of `size` keys, sorted, into `ranking` (u64 entries); `spare`: scratch of the same size. */
export function rankAxis(logits: usize, size: usize, best: usize, ranking: usize, spare: usize): void {
  const capacity = rankingCapacity(size, best);
  let key: usize = 0;
  for (; key < capacity; key++) store<u64>(ranking + key * 8, entry(clampLogit(load<f32>(logits + key * 4)), key));
  moveBestToFront(ranking, capacity, best);
  let filled = best;
  let bound = rankedLogit(ranking, best - 1);
  while (key < size) {
    // Equal logits with a higher index cannot enter, so only what is strictly above the bound is looked at.
    const four = f32x4.splat(bound);
    while (key + 4 <= size && !v128.any_true(f32x4.gt(v128.load(logits + key * 4), four))) key += 4;
    const end = key + 4 < size ? key + 4 : size;
    for (; key < end; key++) {
      const logit = clampLogit(load<f32>(logits + key * 4));
      if (!(logit > bound)) continue;
      store<u64>(ranking + filled * 8, entry(logit, key));
      if (++filled == capacity) {
        moveBestToFront(ranking, filled, best);
        filled = best;
        bound = rankedLogit(ranking, best - 1);
      }
    }
  }
  moveBestToFront(ranking, filled, best);
  sortDescending(ranking, best, spare);
}

/**
 * Reorders distinct u64 until none after the first `best` is larger than any of them, and the last of them is the
 * smallest: Hoare's selection, with the median of three as pivot.
 */
function moveBestToFront(entries: usize, length: usize, best: usize): void {
  const target = entries + (best - 1) * 8;
  let low = entries;
  let high = entries + (length - 1) * 8;
  while (low < high) {
    const pivot = median(load<u64>(low), load<u64>(low + (((high - low) >> 4) << 3)), load<u64>(high));
    let left = low;
    let right = high;
    while (left <= right) {
      while (load<u64>(left) > pivot) left += 8;
      while (load<u64>(right) < pivot) right -= 8;
      if (left > right) break;
      const swap = load<u64>(left);
      store<u64>(left, load<u64>(right));
      store<u64>(right, swap);
      left += 8;
      right -= 8;
    }
    if (target <= right) high = right;
    else if (target >= left) low = left;
    else return;
  }
}

@inline
function median(a: u64, b: u64, c: u64): u64 {
  const high = a > b ? a : b;
  const low = a > b ? b : a;
  return c > high ? high : c < low ? low : c;
}

function sortRun(entries: usize, end: usize): void {
  for (let at = entries + 8; at < end; at += 8) {
    const value = load<u64>(at);
    let to = at;
    while (to > entries && load<u64>(to - 8) < value) {
      store<u64>(to, load<u64>(to - 8));
      to -= 8;
    }
    store<u64>(to, value);
  }
}

/** Sorts distinct u64, descending: runs by insertion, then a bottom-up merge. */
function sortDescending(entries: usize, length: usize, spare: usize): void {
  const end = entries + length * 8;
  for (let start = entries; start < end; start += runLength * 8) {
    const runEnd = start + runLength * 8;
    sortRun(start, runEnd < end ? runEnd : end);
  }
  for (let width = runLength * 8; width < length * 8; width *= 2) {
    for (let start = entries; start + width < end; start += 2 * width) {
      const middle = start + width;
      const mergeEnd = middle + width < end ? middle + width : end;
      if (load<u64>(middle - 8) > load<u64>(middle)) continue;
      memory.copy(spare, start, width);
      // The right half is merged in place: the write position never passes the read position.
      let left = spare;
      let right = middle;
      let to = start;
      while (left < spare + width) {
        if (right < mergeEnd && load<u64>(right) > load<u64>(left)) {
          store<u64>(to, load<u64>(right));
          right += 8;
        } else {
          store<u64>(to, load<u64>(left));
          left += 8;
        }
        to += 8;
      }
    }
  }
}
