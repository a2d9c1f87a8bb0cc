// The best keys of one axis, sorted: what the selection of pairs starts from.
//
// A key is held as one u64 that sorts as it should: above, the clamped logit with its bits turned into an unsigned
// number of the same order; below, the complement of the index, so that of equal logits the lower index is larger.
// First a bound is found that enough keys exceed: all but a few of the others are below it. Then four logits at a time are
// compared with it, and mostly passed over; of the others those above it are moved together, without a branch a key, into
// a buffer of twice as many as are wanted. Should that be full, it is cut to the best half, whose last is the new bound.
// Only what is left in the end is sorted.

const largest: f32 = 3.4028234663852886e38;
/** Up to this length a sort by counting is faster than two and a merge. */
const runLength: usize = 32;
/** Up to this length it is faster than leaving out those that are too many before. */
const countedLength: usize = 64;
/** Halvings of the interval in which the bound is sought. */
const halvings: i32 = 8;

/** Of each set of lanes, as `bitmask` gives it, the bytes of those in it, one lane behind the other. */
const lanesOf = memory.data<u8>([
  128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
  4, 5, 6, 7, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 4, 5, 6, 7, 128, 128, 128, 128, 128, 128, 128, 128,
  8, 9, 10, 11, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 8, 9, 10, 11, 128, 128, 128, 128, 128, 128, 128, 128,
  4, 5, 6, 7, 8, 9, 10, 11, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 128, 128, 128, 128,
  12, 13, 14, 15, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 12, 13, 14, 15, 128, 128, 128, 128, 128, 128, 128, 128,
  4, 5, 6, 7, 12, 13, 14, 15, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 128, 128, 128, 128,
  8, 9, 10, 11, 12, 13, 14, 15, 128, 128, 128, 128, 128, 128, 128, 128,
  0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 128, 128, 128, 128,
  4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 128, 128, 128, 128,
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
]);
/** What is added to the complement of the first of four keys, and for each lane those before it. */
const laneConstants = memory.data<i32>([
  0, -1, -2, -3,
  0, 0, 0, 0,
  -1, 0, 0, 0,
  -1, -1, 0, 0,
  -1, -1, -1, 0,
]);

/** For the selection alone: the finite range, NaN as its lowest value, and one zero. */
@inline
function clampLogit(logit: f32): f32 {
  if (!(logit > -largest)) return -largest;
  return logit > largest ? largest : logit + 0;
}

/** Whether a logit may have been another before it was clamped. */
@inline
export function isClamped(logit: f32): bool {
  return logit == largest || logit == -largest;
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

/** Entries of a buffer of `rankAxis` for the `best` of `size` keys: four are written at a time, and four after the last. */
@inline
export function rankingEntries(size: usize, best: usize): usize {
  return capacityOf(size, best) + 8;
}

@inline
function capacityOf(size: usize, best: usize): usize {
  return size < 2 * best ? size : 2 * best;
}

/**
 * A number that at least `best` of `size` logits exceed, and few more do; NaN where none was found. Of the largest
 * logits of twice as many groups, `best` exceed it. `maxima`: scratch of 2 * best + 3 f32.
 */
function boundOf(logits: usize, size: usize, best: usize, maxima: usize): f32 {
  const vectors: usize = size / 4;
  const groups: usize = (best * 2 + 3) / 4;
  if (vectors < 2 * groups) return NaN;
  let least = f32x4.splat(Infinity);
  let most = f32x4.splat(-Infinity);
  for (let group: usize = 0; group < groups; group++) {
    // pmax is one instruction, and passes over a NaN that comes second.
    let max = f32x4.splat(-Infinity);
    for (let n = group; n < vectors; n += groups) max = f32x4.pmax(max, v128.load(logits + n * 16));
    max = f32x4.pmin(max, f32x4.splat(largest));
    v128.store(maxima + group * 16, max);
    least = f32x4.pmin(least, max);
    most = f32x4.pmax(most, max);
  }
  let low = clampLogit(smallestLane(least));
  let high = -smallestLane(f32x4.neg(most));
  if (countAbove(maxima, groups, low) < best) return NaN;
  for (let n = 0; n < halvings; n++) {
    const middle: f32 = low * 0.5 + high * 0.5;
    const enough = countAbove(maxima, groups, middle) >= best;
    low = enough ? middle : low;
    high = enough ? high : middle;
  }
  return low;
}

@inline
function smallestLane(v: v128): f32 {
  const two = f32x4.pmin(v, v128.shuffle<i32>(v, v, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmin(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
}

/** How many lanes of `count` vectors are above the bound. */
@inline
function countAbove(values: usize, count: usize, bound: f32): usize {
  const four = f32x4.splat(bound);
  let counts = i32x4.splat(0);
  for (let n: usize = 0; n < count; n++) counts = i32x4.sub(counts, f32x4.gt(v128.load(values + n * 16), four));
  const two = i32x4.add(counts, v128.shuffle<i32>(counts, counts, 2, 3, 0, 1));
  return i32x4.extract_lane(two, 0) + i32x4.extract_lane(two, 1);
}

/**
 * Puts the `best` of `size` keys, sorted, into `ranking`, u64 [`rankingEntries`]; `entries`: scratch of the same size,
 * `values`: of as many i32.
 */
export function rankAxis(
  logits: usize,
  size: usize,
  best: usize,
  ranking: usize,
  entries: usize,
  values: usize,
): void {
  const capacity = capacityOf(size, best);
  const whole = size & ~3;
  const names = v128.load(laneConstants);
  const most = f32x4.splat(largest);
  const least = f32x4.splat(-largest);
  const sign = i32x4.splat(i32.MIN_VALUE);
  let key: usize = 0;
  let filled: usize = 0;
  let inOrder = true;
  let bound = boundOf(logits, size, best, ranking);
  if (isNaN(bound)) {
    for (; key < capacity; key++) addKey(logits, key, entries, values, key);
    filled = capacity;
  }
  while (key < size) {
    if (filled >= capacity) {
      moveBestToFront(entries, filled, best);
      filled = best;
      bound = rankedLogit(entries, best - 1);
      inOrder = false;
    }
    if ((key & 3) != 0 || key == whole) {
      // Equal logits with a higher index cannot enter, so only what is strictly above the bound is looked at.
      filled += <usize>(addKey(logits, key, entries, values, filled) > bound);
      key++;
      continue;
    }
    const four = f32x4.splat(bound);
    while (key < whole && !v128.any_true(f32x4.gt(v128.load(logits + key * 4), four))) key += 4;
    if (key == whole) continue;
    const clamped = f32x4.add(f32x4.pmin(f32x4.pmax(least, v128.load(logits + key * 4)), most), f32x4.splat(0));
    const chosen = i32x4.bitmask(f32x4.gt(clamped, four));
    const lanes = v128.load(lanesOf + <usize>chosen * 16);
    // As `orderedBits`, but for the sign.
    const ordered = v128.xor(clamped, i32x4.shr_u(i32x4.shr_s(clamped, 31), 1));
    const above = i8x16.swizzle(ordered, lanes);
    const below = i8x16.swizzle(i32x4.add(i32x4.splat(~(<i32>key)), names), lanes);
    const upper = v128.xor(above, sign);
    v128.store(entries + filled * 8, v128.shuffle<i32>(below, upper, 0, 4, 1, 5));
    v128.store(entries + filled * 8, v128.shuffle<i32>(below, upper, 2, 6, 3, 7), 16);
    v128.store(values + filled * 4, above);
    filled += <usize>popcnt<i32>(chosen);
    key += 4;
  }
  if (inOrder && filled <= countedLength) {
    sortInOrder(filled, entries, values, ranking);
    return;
  }
  if (filled > countedLength) {
    moveBestToFront(entries, filled, best);
    sortDescending(entries, best, ranking);
    memory.copy(ranking, entries, best * 8);
    return;
  }
  sortByCounting(entries, entries + filled * 8, ranking);
}

/** Puts a key where `at` entries are already; returns its logit, clamped. */
@inline
function addKey(logits: usize, key: usize, entries: usize, values: usize, at: usize): f32 {
  const logit = clampLogit(load<f32>(logits + key * 4));
  store<u64>(entries + at * 8, entry(logit, key));
  store<i32>(values + at * 4, <i32>(orderedBits(logit) ^ 0x80000000));
  return logit;
}

/**
 * Sorts a few entries, in the order of their keys, descending, into `target`: the place of each is the number of those
 * that are larger, and of those before it that are equal. `values`: their logits as i32 of the same order, four of which
 * are compared at a time.
 */
function sortInOrder(count: usize, entries: usize, values: usize, target: usize): void {
  v128.store(values + count * 4, i32x4.splat(i32.MIN_VALUE));
  const end = values + count * 4;
  for (let n: usize = 0; n < count; n++) {
    const own = values + (n & ~3) * 4;
    const value = i32x4.splat(load<i32>(values + n * 4));
    const before = v128.load(laneConstants + 16 + (n & 3) * 16);
    const beside = v128.load(own);
    const ahead = v128.and(i32x4.eq(beside, value), before);
    // A comparison that is true is -1.
    let counts = v128.or(i32x4.gt_s(beside, value), ahead);
    for (let at = own + 16; at < end; at += 16) counts = i32x4.add(counts, i32x4.gt_s(v128.load(at), value));
    // Of those before, all that are not smaller.
    for (let at = values; at < own; at += 16) counts = i32x4.sub(counts, i32x4.gt_s(value, v128.load(at)));
    const two = i32x4.add(counts, v128.shuffle<i32>(counts, counts, 2, 3, 0, 1));
    const place = (n & ~3) - <usize>(i32x4.extract_lane(two, 0) + i32x4.extract_lane(two, 1));
    store<u64>(target + place * 8, load<u64>(entries + n * 8));
  }
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
 * Sorts a few distinct u64, descending, into `target`: the place of each is the number of those that are larger, counted
 * two at a time without a branch.
 */
function sortByCounting(entries: usize, end: usize, target: usize): void {
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
    store<u64>(target + place * 8, value);
  }
}

/** Sorts distinct u64, descending: runs by counting, then a bottom-up merge. */
function sortDescending(entries: usize, length: usize, spare: usize): void {
  const end = entries + length * 8;
  for (let start = entries; start < end; start += runLength * 8) {
    const runEnd = start + runLength * 8 < end ? start + runLength * 8 : end;
    sortByCounting(start, runEnd, spare);
    memory.copy(start, spare, runEnd - start);
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
