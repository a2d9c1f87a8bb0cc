// The best keys of one axis, sorted: what the selection of pairs starts from.
//
// A key is held as one u64 that sorts as it should: above, the clamped logit with its bits turned into an unsigned
// number of the same order; below, the complement of the index, so that of equal logits the lower index is larger.
// Keys are read into a buffer of twice as many as are wanted; when it is full it is sorted and cut, and from then on
// four logits at a time are compared with the last that is still in, and mostly passed over.

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
  let filled: usize = 0;
  let key: usize = 0;
  for (; key < capacity; key++) store<u64>(ranking + key * 8, entry(clampLogit(load<f32>(logits + key * 4)), key));
  sortDescending(ranking, capacity, spare);
  if (key == size) return;
  filled = best;
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
        sortDescending(ranking, filled, spare);
        filled = best;
        bound = rankedLogit(ranking, best - 1);
      }
    }
  }
  if (filled > best) sortDescending(ranking, filled, spare);
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
