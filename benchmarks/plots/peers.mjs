import { readResult } from "./read-result.mjs";

const source = "peers-wasm-node24.json";
const ours = "flash-moe wasm";
const colors = new Map([
  ["onnxruntime-node CPU", "#2a7a4f"],
  ["onnxruntime-web wasm", "#c25a1b"],
  ["jax-js wasm", "#6b1f8a"],
]);

/** Forward of others as a multiple of ours, with two threads, Node 24. */
export function peersPlot() {
  const { rows } = readResult(source);
  const two = rows.filter(
    ({ threads, placed, forward }) => threads === 2 && !placed && forward !== undefined,
  );
  const key = ({ tokens, numExperts, part }) => `${tokens} ${numExperts} ${part}`;
  const base = new Map(
    two.filter(({ library }) => library === ours).map((row) => [key(row), row.forward.milliseconds]),
  );
  const values = two
    .filter(({ library }) => library !== ours)
    .map((row) => ({
      library: row.library,
      part: row.part === "layer" ? "whole layer" : "router and experts alone",
      size: `T ${row.tokens}, H ${row.hiddenSize}, N ${row.numExperts.toLocaleString("en")}, k ${row.topK}`,
      times: row.forward.milliseconds / base.get(key(row)),
    }));
  const sizes = [...new Set(values.map(({ size }) => size))];
  const y = { field: "size", type: "nominal", sort: sizes, title: null, axis: { grid: false } };
  const x = {
    field: "times",
    type: "quantitative",
    scale: { type: "log", domain: [0.5, 150], nice: false },
    axis: {
      values: [0.5, 1, 2, 5, 10, 20, 50, 100],
      format: "~g",
      title: "time, as a multiple of flash-moe's",
    },
  };
  const color = {
    field: "library",
    type: "nominal",
    title: null,
    scale: { domain: [...colors.keys()], range: [...colors.values()] },
    legend: { orient: "bottom" },
  };
  const dodge = { yOffset: { field: "library", sort: [...colors.keys()] } };
  return {
    name: "peers-wasm",
    source,
    spec: {
      title: {
        text: "Forward on two CPU cores: to the right of 1, flash-moe is faster",
        subtitle: [
          "Node 24, two threads, f32, intermediate size 2 H; medians. onnxruntime-node is native code.",
          "Where a point is missing, that library ran out of memory.",
        ],
      },
      data: { values },
      facet: { column: { field: "part", sort: "descending", title: null } },
      spec: {
        width: 330,
        height: { step: 18 },
        layer: [
          {
            mark: { type: "rule", strokeWidth: 2, opacity: 0.5 },
            encoding: { y, x, x2: { datum: 1 }, color, ...dodge },
          },
          {
            mark: { type: "point", filled: true, size: 70, opacity: 1 },
            encoding: { y, x, color, ...dodge },
          },
          { mark: { type: "rule", color: "#333" }, encoding: { x: { datum: 1 } } },
        ],
      },
    },
  };
}
