// The pairs (token, slot) grouped by expert, for the gradients of the tables: a stable radix sort of the pair numbers
// (token * k + slot) by their ids, so that the pairs of an expert keep their order and its sums are always the same.
// Neither time nor memory grows with the number of experts.

const digitBits: usize = 11;
const digits: usize = 1 << 11;

/** Bytes of scratch that `groupPairs` takes besides its outputs. */
export function groupPairsScratchBytes(pairs: usize): usize {
  return pairs * 4 + digits * 4;
}

/**
 * Sorts the numbers of the `count` ids that are below `numExperts` into `pairs` (room for `count`), and writes the ids
 * in use, ascending, to `used` and where the pairs of each begin to `starts` (room for count + 1; the last entry is
 * the end). How many ids are in use goes to `usedCount`. One part: it is a small share of the backward.
 */
export function groupPairs(
  count: usize,
  ids: usize,
  numExperts: u32,
  pairs: usize,
  used: usize,
  starts: usize,
  usedCount: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): void {
  const histogram = scratch;
  let from = scratch + digits * 4;
  let to = pairs;
  let passes: usize = 1;
  while (passes * digitBits < 32 && (numExperts - 1) >> <u32>(passes * digitBits) != 0) passes++;
  // Pass by pass the two arrays change roles; the last must write to `pairs`.
  if (passes % 2 == 0) {
    to = from;
    from = pairs;
  }
  let length: usize = 0;
  for (let pair: usize = 0; pair < count; pair++) {
    if (load<u32>(ids + pair * 4) < numExperts) store<u32>(from + length++ * 4, <u32>pair);
  }
  for (let pass: usize = 0; pass < passes; pass++) {
    sortByDigit(length, ids, <u32>(pass * digitBits), from, to, histogram);
    const swap = from;
    from = to;
    to = swap;
  }
  let row: usize = 0;
  let last: u32 = 0;
  for (let p: usize = 0; p < length; p++) {
    const id = load<u32>(ids + load<u32>(pairs + p * 4) * 4);
    if (p > 0 && id == last) continue;
    store<u32>(used + row * 4, id);
    store<u32>(starts + row++ * 4, <u32>p);
    last = id;
  }
  store<u32>(starts + row * 4, <u32>length);
  store<u32>(usedCount, <u32>row);
}

function sortByDigit(
  length: usize,
  ids: usize,
  shift: u32,
  from: usize,
  to: usize,
  histogram: usize,
): void {
  memory.fill(histogram, 0, digits * 4);
  for (let p: usize = 0; p < length; p++) {
    const bin = histogram + digitOf(ids, from, p, shift) * 4;
    store<u32>(bin, load<u32>(bin) + 1);
  }
  let start: u32 = 0;
  for (let digit: usize = 0; digit < digits; digit++) {
    const inDigit = load<u32>(histogram + digit * 4);
    store<u32>(histogram + digit * 4, start);
    start += inDigit;
  }
  for (let p: usize = 0; p < length; p++) {
    const bin = histogram + digitOf(ids, from, p, shift) * 4;
    const position = load<u32>(bin);
    store<u32>(bin, position + 1);
    store<u32>(to + position * 4, load<u32>(from + p * 4));
  }
}

@inline
function digitOf(ids: usize, pairs: usize, p: usize, shift: u32): usize {
  return (load<u32>(ids + load<u32>(pairs + p * 4) * 4) >> shift) & (<u32>digits - 1);
}
