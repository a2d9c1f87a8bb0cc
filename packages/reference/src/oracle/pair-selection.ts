import { createAxisRanking } from "./axis-ranking.js";

export interface PairSelectionShape {
  /** X. */
  keysX: number;
  /** Y. */
  keysY: number;
  /** k, from 1 to X * Y. */
  topK: number;
}

/** Selects for the token whose X + Y logits start at `start`; writes k ids from `idsStart` on. */
export type PairSelector = (logits: Float32Array, start: number, ids: Int32Array, idsStart: number) => void;

/** The k best pairs of one token, from its logits [X + Y]; see `createPairSelector`. */
export function selectPairs(logits: Float32Array, shape: PairSelectionShape): Int32Array {
  const ids = new Int32Array(shape.topK);
  createPairSelector(shape)(logits, 0, ids, 0);
  return ids;
}

/**
 * The exact selection. With lx, ly the clamped logits of the two axes, every operation rounded to f32:
 *
 *     s_ij = (lx[i] - max lx) + (ly[j] - max ly),   id = i * Y + j
 *
 * and the k best come out by (s descending, rank of i ascending, rank of j ascending), where rank sorts
 * an axis by (logit descending, index ascending).
 *
 * Rounding is monotone, so along ranks s never rises: the pair at ranks (a, b), counted from 1, comes
 * after all other pairs at ranks (<= a, <= b), and is out when a * b > k. So k ranks per axis suffice, and
 * a heap that holds one pair per opened row (the best not yet taken) gives the order: opening row a + 1 can
 * wait until the first pair of row a is taken. Cost per token: a pass over the logits, then O(k log k).
 */
export function createPairSelector(shape: PairSelectionShape): PairSelector {
  const { keysX, keysY, topK } = shape;
  const rows = Math.min(keysX, topK);
  const columns = Math.min(keysY, topK);
  const rankingX = createAxisRanking(keysX, rows);
  const rankingY = createAxisRanking(keysY, columns);
  const distanceX = new Float32Array(rows);
  const distanceY = new Float32Array(columns);
  // Per row of ranks: the column of its best pair not yet taken, and the sum there.
  const column = new Int32Array(rows);
  const sum = new Float32Array(rows);
  const heap = new Int32Array(rows);
  let heapSize = 0;

  /** Whether the pair of row `a` comes before that of row `b`. */
  function before(a: number, b: number): boolean {
    return sum[a] > sum[b] || (sum[a] === sum[b] && a < b);
  }

  function siftDown(): void {
    const row = heap[0];
    let at = 0;
    for (let child = 1; child < heapSize; child = 2 * at + 1) {
      if (child + 1 < heapSize && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], row)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = row;
  }

  function openRow(row: number): void {
    column[row] = 0;
    sum[row] = Math.fround(distanceX[row] + distanceY[0]);
    let at = heapSize++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(row, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = row;
  }

  return (logits, start, ids, idsStart) => {
    rankingX.rank(logits, start);
    rankingY.rank(logits, start + keysX);
    for (let a = 0; a < rows; a++) distanceX[a] = Math.fround(rankingX.logits[a] - rankingX.logits[0]);
    for (let b = 0; b < columns; b++) distanceY[b] = Math.fround(rankingY.logits[b] - rankingY.logits[0]);
    heapSize = 0;
    openRow(0);
    for (let taken = 0; taken < topK; taken++) {
      const row = heap[0];
      const rank = column[row];
      ids[idsStart + taken] = rankingX.keys[row] * keysY + rankingY.keys[rank];
      const next = rank + 1;
      if (next < columns && (row + 1) * (next + 1) <= topK) {
        column[row] = next;
        sum[row] = Math.fround(distanceX[row] + distanceY[next]);
      } else {
        heap[0] = heap[--heapSize];
      }
      if (heapSize > 0) siftDown();
      if (rank === 0 && row + 1 < rows) openRow(row + 1);
    }
  };
}
