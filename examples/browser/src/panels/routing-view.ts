import type { HeatMapData } from "../charts/heat-map.js";
import type { RoutedText } from "../remote/protocol.js";

/** The routing of one byte, or of all of them together, as a heat map. */
export function heatMapOf(routed: RoutedText, token: number | undefined): HeatMapData {
  const { keysX, keysY, topK, bytes } = routed;
  const values = new Float32Array(keysX * keysY);
  const [first, end] = token === undefined ? [0, bytes.length] : [token, token + 1];
  for (let pair = first * topK; pair < end * topK; pair++) {
    // A weight may be too small for f32, and its expert is chosen all the same.
    values[routed.ids[pair]] += Math.max(routed.weights[pair], Number.MIN_VALUE * 2 ** 925);
  }
  let largest = 0;
  for (const value of values) largest = Math.max(largest, value);
  const rows = new Float32Array(keysX);
  const columns = new Float32Array(keysY);
  for (let t = first; t < end; t++) {
    const axes = axisProbabilities(routed, t);
    for (let i = 0; i < keysX; i++) rows[i] += axes.rows[i] / (end - first);
    for (let j = 0; j < keysY; j++) columns[j] += axes.columns[j] / (end - first);
  }
  return { keysX, keysY, values, largest, rows, columns, sparse: (end - first) * topK <= 512 };
}

/** How probable each row and each column is after a byte: the softmax of the two halves of its router logits. */
export function axisProbabilities(
  { keysX, keysY, logits }: RoutedText,
  token: number,
): { readonly rows: Float32Array; readonly columns: Float32Array } {
  const start = token * (keysX + keysY);
  return {
    rows: softmax(logits.subarray(start, start + keysX)),
    columns: softmax(logits.subarray(start + keysX, start + keysX + keysY)),
  };
}

function softmax(logits: Float32Array): Float32Array {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY);
  const exponentials = logits.map((logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}

export interface WeighedExpert {
  readonly row: number;
  readonly column: number;
  readonly value: number;
}

/** The experts with the largest values, at most `count`, the largest first. */
export function topExperts(
  routed: RoutedText,
  token: number | undefined,
  count: number,
): readonly WeighedExpert[] {
  const { values, keysY } = heatMapOf(routed, token);
  const used = Array.from(values.keys()).filter((id) => values[id] > 0);
  used.sort((a, b) => values[b] - values[a] || a - b);
  return used
    .slice(0, count)
    .map((id) => ({ row: Math.floor(id / keysY), column: id % keysY, value: values[id] }));
}
