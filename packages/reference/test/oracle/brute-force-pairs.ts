import type { PairSelectionShape } from "../../src/oracle/index.js";

const largest = 3.4028234663852886e38;

/** 1-based ranks of the keys of one axis, and its clamped logits, by a full sort. */
function rankAxis(logits: Float32Array): { clamped: number[]; ranks: number[] } {
  const clamped = [...logits].map((logit) =>
    Number.isNaN(logit) ? -largest : Math.min(Math.max(logit, -largest), largest),
  );
  const order = clamped.map((_, key) => key).sort((a, b) => clamped[b] - clamped[a] || a - b);
  const ranks: number[] = [];
  for (const [place, key] of order.entries()) ranks[key] = place + 1;
  return { clamped, ranks };
}

/** The k best of all X * Y pairs: every score is computed, and all that could be among the k are sorted. */
export function bruteForcePairs(logits: Float32Array, shape: PairSelectionShape): Int32Array {
  const { keysX, keysY, topK } = shape;
  const x = rankAxis(logits.subarray(0, keysX));
  const y = rankAxis(logits.subarray(keysX, keysX + keysY));
  const maxX = Math.max(...x.clamped);
  const maxY = Math.max(...y.clamped);
  const scores = new Float32Array(keysX * keysY);
  for (let i = 0; i < keysX; i++) {
    for (let j = 0; j < keysY; j++) {
      scores[i * keysY + j] = Math.fround(
        Math.fround(x.clamped[i] - maxX) + Math.fround(y.clamped[j] - maxY),
      );
    }
  }
  const bound = scores.slice().sort()[scores.length - topK];
  const candidates: number[] = [];
  for (let id = 0; id < scores.length; id++) if (scores[id] >= bound) candidates.push(id);
  const rankX = (id: number) => x.ranks[Math.floor(id / keysY)];
  const rankY = (id: number) => y.ranks[id % keysY];
  candidates.sort((a, b) => {
    if (scores[a] !== scores[b]) return scores[b] - scores[a];
    return rankX(a) - rankX(b) || rankY(a) - rankY(b);
  });
  return Int32Array.from(candidates.slice(0, topK));
}
