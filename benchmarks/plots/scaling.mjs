import { readResult } from "./read-result.mjs";

const source = "scaling-wasm.json";
const operations = new Map([
  ["router forward", "router, forward"],
  ["router backward", "router, backward"],
  ["experts forward", "experts, forward"],
  ["experts backward, compact", "experts, backward"],
  ["adamw, 2,048 rows used", "AdamW on the used rows"],
]);

/** Time over the number of experts, on WebAssembly, beside sqrt(N) and N. */
export function scalingPlot() {
  const { experts, results, device, tokens, hiddenSize, topK } = readResult(source);
  const points = results.flatMap(({ operation, milliseconds }) =>
    experts.map((count, at) => ({
      operation: operations.get(operation),
      experts: count,
      times: milliseconds[at] / milliseconds[0],
    })),
  );
  const [first, last] = [experts[0], experts.at(-1)];
  const laws = ["N", "√N"].flatMap((law) =>
    [first, last].map((count) => ({
      law,
      experts: count,
      times: law === "N" ? count / first : Math.sqrt(count / first),
    })),
  );
  const x = {
    field: "experts",
    type: "quantitative",
    scale: { type: "log", base: 4, domain: [first, last], nice: false },
    axis: { values: experts, format: ",", title: "experts, N", grid: false },
  };
  const y = {
    field: "times",
    type: "quantitative",
    scale: { type: "log", base: 4, domain: [0.9, 256], nice: false },
    axis: {
      values: [1, 4, 16, 64, 256],
      title: `time, as a multiple of that with ${first.toLocaleString("en")}`,
    },
  };
  const law = { strokeDash: [4, 4], color: "#888" };
  return {
    name: "scaling",
    source,
    spec: {
      width: 520,
      height: 320,
      title: {
        text: "With 256 times the experts: the experts take as long, the router at most √N times",
        subtitle: `${device}; T = ${tokens}, H = ${hiddenSize}, k = ${topK}; medians`,
      },
      layer: [
        {
          data: { values: laws },
          mark: { type: "line", ...law },
          encoding: { x, y, detail: { field: "law" } },
        },
        {
          data: { values: laws.filter(({ experts: count }) => count === last) },
          mark: { type: "text", align: "left", dx: 6, color: "#666", fontSize: 12 },
          encoding: { x, y, text: { field: "law" } },
        },
        {
          data: { values: points },
          mark: { type: "line", point: { size: 50 }, strokeWidth: 2 },
          encoding: {
            x,
            y,
            color: {
              field: "operation",
              type: "nominal",
              sort: [...operations.values()],
              title: null,
              scale: { range: ["#6b1f8a", "#b07cc6", "#c25a1b", "#e3a373", "#2a7a4f"] },
            },
          },
        },
      ],
    },
  };
}
