// The selection of the k best of X * Y pairs, exactly, and their routing weights.
//
//     s_ij = (lx[i] - max lx) + (ly[j] - max ly)     every operation one f32 operation, no exponential
//
// in the order (s descending, rank of i ascending, rank of j ascending). The scores of all pairs never exist. Along
// the ranks of either axis s does not rise, so a pair at ranks (a, b), counted from 1, can be among the k best only if
// a * b <= k: at most k keys of each axis matter, and of these the staircase under a * b = k. A heap holds for each
// opened row of ranks its best pair not yet taken; row a + 1 is opened when the first pair of row a is taken. The cost
// of a token is a pass over its logits and O(k log k).

import { isClamped, orderedBits, rankAxis, rankedKey, rankedLogit, rankingEntries } from "./router-rank";
import { axisMax, axisSum, tokenWeights } from "./router-weights";
import { partLength, roundUp, smaller } from "./tasks";

/** Bytes of scratch a thread needs. */
export function routerSelectScratchBytes(keysX: usize, keysY: usize, topK: usize): usize {
  const rows = smaller(keysX, topK);
  const columns = smaller(keysY, topK);
  const rankings = rankingEntries(keysX, rows) + rankingEntries(keysY, columns);
  const spare = spareEntries(keysX, keysY, rows, columns);
  return roundUp((rankings + spare + rows + topK) * 8 + (spare + rows + columns + rows) * 4, 64);
}

/** Sorting either axis takes as much room again. */
@inline
function spareEntries(keysX: usize, keysY: usize, rows: usize, columns: usize): usize {
  const entriesX = rankingEntries(keysX, rows);
  const entriesY = rankingEntries(keysY, columns);
  return entriesX > entriesY ? entriesX : entriesY;
}

@inline
function heapEntry(sum: f32, row: usize): u64 {
  return (<u64>orderedBits(sum) << 32) | <u64>~(<u32>row);
}

function siftDown(heap: usize, size: usize, value: u64): void {
  let at: usize = 0;
  for (let child: usize = 1; child < size; child = 2 * at + 1) {
    if (child + 1 < size && load<u64>(heap + child * 8, 8) > load<u64>(heap + child * 8)) child++;
    const best = load<u64>(heap + child * 8);
    if (best < value) break;
    store<u64>(heap + at * 8, best);
    at = child;
  }
  store<u64>(heap + at * 8, value);
}

function siftUp(heap: usize, at: usize, value: u64): void {
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = load<u64>(heap + parent * 8);
    if (above > value) break;
    store<u64>(heap + at * 8, above);
    at = parent;
  }
  store<u64>(heap + at * 8, value);
}

/** distance[r] = the ranked logit - the best one. */
function distances(ranking: usize, count: usize, target: usize): void {
  const best = rankedLogit(ranking, 0);
  for (let r: usize = 0; r < count; r++) store<f32>(target + r * 4, rankedLogit(ranking, r) - best);
}

/** The largest logit of an axis as `axisMax` gives it: the first of its ranking, unless that was clamped. */
@inline
function largestLogit(logits: usize, keys: usize, ranking: usize): f64 {
  const first = rankedLogit(ranking, 0);
  return isClamped(first) ? axisMax(logits, keys) : first;
}

/** `logits` [T, X + Y] f32; `ids` [T, k] i32; `weights` [T, k] f32. A part is `perTask` tokens. */
export function routerSelect(
  tokens: usize,
  keysX: u32,
  keysY: u32,
  topK: usize,
  normalizeWeights: bool,
  logits: usize,
  ids: usize,
  weights: usize,
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): void {
  const first = task * perTask;
  const count = partLength(tokens, perTask, task);
  logits += first * (keysX + keysY) * 4;
  ids += first * topK * 4;
  weights += first * topK * 4;
  scratch += thread * routerSelectScratchBytes(keysX, keysY, topK);
  const rows = smaller(keysX, topK);
  const columns = smaller(keysY, topK);
  const rankingX = scratch;
  const rankingY = rankingX + rankingEntries(keysX, rows) * 8;
  const spare = rankingY + rankingEntries(keysY, columns) * 8;
  const heap = spare + spareEntries(keysX, keysY, rows, columns) * 8;
  const weights64 = heap + rows * 8;
  const values = weights64 + topK * 8;
  const distanceX = values + spareEntries(keysX, keysY, rows, columns) * 4;
  const distanceY = distanceX + rows * 4;
  const taken = distanceY + columns * 4;
  for (let t: usize = 0; t < count; t++) {
    const logitsY = logits + keysX * 4;
    rankAxis(logits, keysX, rows, rankingX, spare, values);
    rankAxis(logitsY, keysY, columns, rankingY, spare, values);
    distances(rankingX, rows, distanceX);
    distances(rankingY, columns, distanceY);
    store<u64>(heap, heapEntry(load<f32>(distanceX) + load<f32>(distanceY), 0));
    store<u32>(taken, 0);
    let size: usize = 1;
    for (let slot: usize = 0; slot < topK; slot++) {
      const row: usize = ~(<u32>load<u64>(heap));
      const rank: usize = load<u32>(taken + row * 4);
      store<u32>(ids + slot * 4, rankedKey(rankingX, row) * keysY + rankedKey(rankingY, rank));
      const next = rank + 1;
      if (next < columns && (row + 1) * (next + 1) <= topK) {
        store<u32>(taken + row * 4, <u32>next);
        const sum = load<f32>(distanceX + row * 4) + load<f32>(distanceY + next * 4);
        siftDown(heap, size, heapEntry(sum, row));
      } else if (--size > 0) {
        siftDown(heap, size, load<u64>(heap + size * 8));
      }
      if (rank == 0 && row + 1 < rows) {
        const opened = row + 1;
        store<u32>(taken + opened * 4, 0);
        const sum = load<f32>(distanceX + opened * 4) + load<f32>(distanceY);
        siftUp(heap, size++, heapEntry(sum, opened));
      }
    }
    const maxX = largestLogit(logits, keysX, rankingX);
    const maxY = largestLogit(logitsY, keysY, rankingY);
    const sumX = axisSum(logits, keysX, maxX);
    const sumY = axisSum(logitsY, keysY, maxY);
    tokenWeights(
      logits,
      keysX,
      keysY,
      topK,
      normalizeWeights,
      ids,
      maxX,
      sumX,
      maxY,
      sumY,
      weights64,
    );
    for (let slot: usize = 0; slot < topK; slot++) {
      store<f32>(weights + slot * 4, <f32>load<f64>(weights64 + slot * 8));
    }
    logits += (keysX + keysY) * 4;
    ids += topK * 4;
    weights += topK * 4;
  }
}
