import { type Fault, readNumbers, replacedBy, rewrite } from "./fault.js";

/** Orders the chosen pairs of each token anew. */
function reordered(
  name: string,
  before: (a: { id: number; score: number }, b: { id: number; score: number }) => number,
  found: readonly string[],
): Fault {
  return {
    name,
    change: replacedBy("routerSelectForward", async (call, run, tools) => {
      run(call);
      const { tokens, keysX, keysY, topK } = call;
      const logits = await readNumbers(tools, call.logits);
      const ids = (await readNumbers(tools, call.ids)).slice();
      const weights = (await readNumbers(tools, call.weights)).slice();
      for (let t = 0; t < tokens; t++) {
        const axisX = logits.subarray(t * (keysX + keysY), t * (keysX + keysY) + keysX);
        const axisY = logits.subarray(t * (keysX + keysY) + keysX, (t + 1) * (keysX + keysY));
        const [maxX, maxY] = [Math.max(...axisX), Math.max(...axisY)];
        const pairs = Array.from({ length: topK }, (_, slot) => {
          const id = ids[t * topK + slot];
          const x = Math.fround(axisX[Math.floor(id / keysY)] - maxX);
          const score = Math.fround(x + Math.fround(axisY[id % keysY] - maxY));
          return { id, score, weight: weights[t * topK + slot] };
        });
        pairs.sort(before).forEach(({ id, weight }, slot) => {
          ids[t * topK + slot] = id;
          weights[t * topK + slot] = weight;
        });
      }
      await rewrite(tools, call.ids, () => ids);
      await rewrite(tools, call.weights, () => weights);
    }),
    cases: /^router-select\/(ties|odd-grid|all-equal)/,
    found,
  };
}

/** Other experts, another order, or other weights. */
export const selectionFaults: readonly Fault[] = [
  reordered("ties by expert id", (a, b) => b.score - a.score || a.id - b.id, [
    "router-select/ties",
    "router-select/ties-large-k",
  ]),
  reordered("ties by the highest expert id", (a, b) => b.score - a.score || b.id - a.id, [
    "router-select/ties",
    "router-select/all-equal",
  ]),
  reordered("pairs in the order of their ids", (a, b) => a.id - b.id, ["router-select/odd-grid"]),
  {
    name: "another expert at the boundary",
    change: replacedBy("routerSelectForward", async (call, run, tools) => {
      run(call);
      const { topK, keysX, keysY } = call;
      await rewrite(tools, call.ids, (ids) =>
        ids.map((id, pair) => (pair % topK === topK - 1 ? (id + 1) % (keysX * keysY) : id)),
      );
    }),
    cases: /^router-select\/(odd-grid|paper-size)/,
    found: ["router-select/odd-grid", "router-select/paper-size/normalized"],
  },
  {
    name: "x and y taken for each other",
    change: replacedBy("routerSelectForward", async (call, run, tools) => {
      run(call);
      const { keysX, keysY } = call;
      await rewrite(tools, call.ids, (ids) => ids.map((id) => (id % keysY) * keysX + Math.floor(id / keysY)));
    }),
    cases: /^router-select\/(odd-grid|one-x-key)/,
    found: ["router-select/odd-grid"],
  },
  {
    name: "weights never normalised",
    change: replacedBy("routerSelectForward", async (call, run) => run({ ...call, normalizeWeights: false })),
    cases: /^router-select\/odd-grid/,
    found: ["router-select/odd-grid/normalized"],
  },
  {
    name: "exponentials without the maximum taken off",
    change: replacedBy("routerSelectForward", async (call, run, tools) => {
      run(call);
      if (call.normalizeWeights) return;
      const { tokens, keysX, keysY, topK } = call;
      const logits = await readNumbers(tools, call.logits);
      const ids = await readNumbers(tools, call.ids);
      const f = Math.fround;
      await rewrite(tools, call.weights, (weights) => {
        const exponential = logits.map((logit) => f(Math.exp(logit)));
        for (let t = 0; t < tokens; t++) {
          const sums = [0, 0];
          for (let key = 0; key < keysX + keysY; key++) {
            sums[key < keysX ? 0 : 1] += exponential[t * (keysX + keysY) + key];
          }
          for (let slot = 0; slot < topK; slot++) {
            const id = ids[t * topK + slot];
            const x = exponential[t * (keysX + keysY) + Math.floor(id / keysY)];
            const y = exponential[t * (keysX + keysY) + keysX + (id % keysY)];
            weights[t * topK + slot] = f(f(x / f(sums[0])) * f(y / f(sums[1])));
          }
        }
        return weights;
      });
    }),
    cases: /^router-select\/(odd-grid|wide-range)$/,
    found: ["router-select/wide-range"],
  },
  {
    name: "NaN hidden by the clamp of the selection",
    change: replacedBy("routerSelectForward", async (call, run, tools) => {
      run(call);
      await rewrite(tools, call.weights, (weights) =>
        weights.map((weight) => (Number.isNaN(weight) ? 0 : weight)),
      );
    }),
    cases: /^router-select\/(not-a-number|plus-infinity)/,
    found: ["router-select/not-a-number", "router-select/plus-infinity"],
  },
];
