// The best keys of one axis, sorted: what the selection of pairs starts from.
//
// A key is held as one u64 that sorts as it should: above, the clamped logit with its bits turned into an unsigned
// number of the same order; below, the complement of the index, so that of equal logits the lower index is larger.
// Keys are read into a buffer of twice as many as are wanted; when it is full it is cut to the best half, and from then
// on four logits at a time are compared with the last that is still in, and mostly passed over. Only what is left in
// the end is sorted.

const largest: f32 = 3.4028234663852886e38;
/** Up to this length a sort by counting is fastest. */
const runLength: usize = 32;

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
      store<u64>(ranking + filled * 8, entry(logit, key));
      filled += <usize>(logit > bound);
      if (filled == capacity) {
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
 * smallest: Hoare's selection, with the median of three as pivot and no branch on the values.
 */
function moveBestToFront(entries: usize, length: usize, best: usize): void {
  const target = entries + (best - 1) * 8;
  let low = entries;
  let high = entries + (length - 1) * 8;
  while (low < high) {
    movePivotToEnd(low, low + (((high - low) >> 4) << 3), high);
    const pivot = load<u64>(high);
    let border = low;
    for (let at = low; at < high; at += 8) {
      // No branch: which way it goes is a coin toss.
      const value = load<u64>(at);
      store<u64>(at, load<u64>(border));
      store<u64>(border, value);
      border += <usize>(value > pivot) << 3;
    }
    store<u64>(high, load<u64>(border));
    store<u64>(border, pivot);
    if (target < border) high = border - 8;
    else if (target > border) low = border + 8;
    else return;
  }
}

/** Puts the median of the three at `c`. */
@inline
function movePivotToEnd(a: usize, b: usize, c: usize): void {
  const x = load<u64>(a);
  const y = load<u64>(b);
  const z = load<u64>(c);
  if (x > y == x < z) {
    store<u64>(a, z);
    store<u64>(c, x);
  } else if (y > x == y < z) {
    store<u64>(b, z);
    store<u64>(c, y);
  }
}

/**
 * Sorts up to `runLength` distinct u64, descending, into `spare` and back: the place of each is the number of those
 * that are larger, counted two at a time without a branch.
 */
function sortRun(entries: usize, end: usize, spare: usize): void {
  const flip = i64x2.splat(i64.MIN_VALUE); // there are only signed comparisons
  const pairs = entries + ((end - entries) & ~15);
  for (let at = entries; at < end; at += 8) {
    const value = load<u64>(at);
    const both = v128.xor(i64x2.splat(value), flip);
    let counts = i64x2.splat(0);
    for (let other = entries; other < pairs; other += 16) {
      counts = i64x2.sub(counts, i64x2.gt_s(v128.xor(v128.load(other), flip), both));
    }
    let place = <usize>(i64x2.extract_lane(counts, 0) + i64x2.extract_lane(counts, 1));
    if (pairs < end) place += <usize>(load<u64>(pairs) > value);
    store<u64>(spare + place * 8, value);
  }
  memory.copy(entries, spare, end - entries);
}

/** Sorts distinct u64, descending: runs by counting, then a bottom-up merge. */
function sortDescending(entries: usize, length: usize, spare: usize): void {
  const end = entries + length * 8;
  for (let start = entries; start < end; start += runLength * 8) {
    const runEnd = start + runLength * 8;
    sortRun(start, runEnd < end ? runEnd : end, spare);
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
