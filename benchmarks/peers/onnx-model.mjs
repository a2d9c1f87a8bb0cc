// The layer as an ONNX graph of standard operators: top-k per axis, then over the k * k sums (never over N), a
// gather of the chosen rows, two batched products; MatMul, Sigmoid and Mul for the shared MLP.
import protobuf from "protobufjs";
import { transpose } from "./problem.mjs";

/** @typedef {import("./problem.mjs").Problem} Problem */

// The part of ONNX's schema that such a graph needs; the numbers are the format's.
const schema = protobuf.Root.fromJSON({
  nested: {
    Model: {
      fields: {
        irVersion: { type: "int64", id: 1 },
        opsets: { rule: "repeated", type: "Opset", id: 8 },
        graph: { type: "Graph", id: 7 },
      },
    },
    Opset: { fields: { domain: { type: "string", id: 1 }, version: { type: "int64", id: 2 } } },
    Graph: {
      fields: {
        nodes: { rule: "repeated", type: "Node", id: 1 },
        name: { type: "string", id: 2 },
        initializers: { rule: "repeated", type: "Tensor", id: 5 },
        inputs: { rule: "repeated", type: "Value", id: 11 },
        outputs: { rule: "repeated", type: "Value", id: 12 },
      },
    },
    Node: {
      fields: {
        inputs: { rule: "repeated", type: "string", id: 1 },
        outputs: { rule: "repeated", type: "string", id: 2 },
        name: { type: "string", id: 3 },
        opType: { type: "string", id: 4 },
        attributes: { rule: "repeated", type: "Attribute", id: 5 },
      },
    },
    Attribute: {
      fields: {
        name: { type: "string", id: 1 },
        i: { type: "int64", id: 3 },
        type: { type: "int32", id: 20 },
      },
    },
    Tensor: {
      fields: {
        dims: { rule: "repeated", type: "int64", id: 1 },
        dataType: { type: "int32", id: 2 },
        name: { type: "string", id: 8 },
        rawData: { type: "bytes", id: 9 },
      },
    },
    Value: { fields: { name: { type: "string", id: 1 }, type: { type: "ValueType", id: 2 } } },
    ValueType: { fields: { tensor: { type: "TensorType", id: 1 } } },
    TensorType: { fields: { elementType: { type: "int32", id: 1 }, shape: { type: "Shape", id: 2 } } },
    Shape: { fields: { dims: { rule: "repeated", type: "Dimension", id: 1 } } },
    Dimension: { fields: { value: { type: "int64", id: 1 } } },
  },
});
const float = 1;
const int64 = 7;
const integerAttribute = 2;

/**
 * The bytes of the model. Without `tables` the two expert tables are inputs: a model holds at most 2 GiB. The
 * outputs: "output" [T, H] and "ids" [T, k].
 * @param {Problem} problem @param {{ part: "layer" | "routed", tables: boolean }} options
 */
export function onnxModel(problem, { part, tables }) {
  const { tokens: T, hiddenSize: H, numExperts: N, topK: k, keys, intermediateSize: I } = problem;
  const kept = Math.min(k, keys);
  const graph = new GraphBuilder();
  graph.input("x", [T, H]);
  graph.constant("router_x", [H, keys], transpose(problem.router.subarray(0, keys * H), keys, H));
  graph.constant("router_y", [H, keys], transpose(problem.router.subarray(keys * H), keys, H));
  for (const [name, table] of /** @type {const} */ ([
    ["down_table", problem.downTable],
    ["up_table", problem.upTable],
  ])) {
    if (tables) graph.constant(name, [N, H], table);
    else graph.input(name, [N, H]);
  }
  graph.integers("kept", [kept]);
  graph.integers("k", [k]);
  graph.integers("axis_1", [1]);
  graph.integers("axis_2", [2]);
  graph.integers("sums_shape", [T, kept * kept]);
  graph.integers("kept_scalar", [], [kept]);
  graph.integers("keys_scalar", [], [keys]);
  graph.integers("tokens_last", [T, H, 1]);

  for (const axis of ["x", "y"]) {
    graph.node("MatMul", ["x", `router_${axis}`], [`logits_${axis}`]);
    graph.node("LogSoftmax", [`logits_${axis}`], [`log_${axis}`], { axis: -1 });
    graph.node("TopK", [`log_${axis}`, "kept"], [`top_${axis}`, `index_${axis}`], { axis: -1 });
  }
  graph.node("Unsqueeze", ["top_x", "axis_2"], ["top_x_column"]);
  graph.node("Unsqueeze", ["top_y", "axis_1"], ["top_y_row"]);
  graph.node("Add", ["top_x_column", "top_y_row"], ["all_sums"]);
  graph.node("Reshape", ["all_sums", "sums_shape"], ["sums"]);
  graph.node("TopK", ["sums", "k"], ["scores", "pair"], { axis: -1 });
  graph.node("Exp", ["scores"], ["weights"]);
  graph.node("Div", ["pair", "kept_scalar"], ["rank_x"]);
  graph.node("Mul", ["rank_x", "kept_scalar"], ["rank_x_first"]);
  graph.node("Sub", ["pair", "rank_x_first"], ["rank_y"]);
  graph.node("GatherElements", ["index_x", "rank_x"], ["i"], { axis: 1 });
  graph.node("GatherElements", ["index_y", "rank_y"], ["j"], { axis: 1 });
  graph.node("Mul", ["i", "keys_scalar"], ["i_first"]);
  graph.node("Add", ["i_first", "j"], ["ids"]);

  graph.node("Gather", ["down_table", "ids"], ["down_rows"], { axis: 0 });
  graph.node("Gather", ["up_table", "ids"], ["up_rows"], { axis: 0 });
  graph.node("Reshape", ["x", "tokens_last"], ["x_column"]);
  graph.node("MatMul", ["down_rows", "x_column"], ["dots_column"]);
  graph.node("Squeeze", ["dots_column", "axis_2"], ["dots"]);
  graph.node("Sigmoid", ["dots"], ["dots_sigmoid"]);
  graph.node("Mul", ["dots", "dots_sigmoid"], ["activated"]);
  graph.node("Mul", ["activated", "weights"], ["coefficients"]);
  graph.node("Unsqueeze", ["coefficients", "axis_1"], ["coefficients_row"]);
  graph.node("MatMul", ["coefficients_row", "up_rows"], ["routed_row"]);
  if (part === "routed") {
    graph.node("Squeeze", ["routed_row", "axis_1"], ["output"]);
  } else {
    graph.node("Squeeze", ["routed_row", "axis_1"], ["routed"]);
    graph.constant("gate", [H, I], transpose(problem.gate, I, H));
    graph.constant("up", [H, I], transpose(problem.up, I, H));
    graph.constant("down", [I, H], transpose(problem.down, H, I));
    graph.node("MatMul", ["x", "gate"], ["gated"]);
    graph.node("Sigmoid", ["gated"], ["gated_sigmoid"]);
    graph.node("Mul", ["gated", "gated_sigmoid"], ["gated_activated"]);
    graph.node("MatMul", ["x", "up"], ["upped"]);
    graph.node("Mul", ["gated_activated", "upped"], ["intermediate"]);
    graph.node("MatMul", ["intermediate", "down"], ["shared"]);
    graph.node("Add", ["routed", "shared"], ["output"]);
  }
  graph.output("output", float, [T, H]);
  graph.output("ids", int64, [T, k]);
  return graph.encode();
}

class GraphBuilder {
  #graph = /** @type {Record<"nodes" | "initializers" | "inputs" | "outputs", object[]>} */ ({
    nodes: [],
    initializers: [],
    inputs: [],
    outputs: [],
  });

  /** @param {string} name @param {number[]} dims */
  input(name, dims) {
    this.#graph.inputs.push(value(name, float, dims));
  }

  /** @param {string} name @param {number} elementType @param {number[]} dims */
  output(name, elementType, dims) {
    this.#graph.outputs.push(value(name, elementType, dims));
  }

  /** @param {string} name @param {number[]} dims @param {Float32Array} values */
  constant(name, dims, values) {
    this.#initializer(name, float, dims, values);
  }

  /** A tensor of int64, one-dimensional unless `values` are given. @param {string} name @param {number[]} dims */
  integers(name, dims, values = dims) {
    const shape = values === dims ? [dims.length] : dims;
    this.#initializer(name, int64, shape, BigInt64Array.from(values, BigInt));
  }

  /** @param {string} opType @param {string[]} inputs @param {string[]} outputs @param {Record<string, number>} attributes */
  node(opType, inputs, outputs, attributes = {}) {
    const list = Object.entries(attributes).map(([name, i]) => ({ name, i, type: integerAttribute }));
    this.#graph.nodes.push({ name: outputs[0], opType, inputs, outputs, attributes: list });
  }

  encode() {
    const model = {
      irVersion: 8,
      opsets: [{ domain: "", version: 17 }],
      graph: { name: "layer", ...this.#graph },
    };
    return schema.lookupType("Model").encode(model).finish();
  }

  /** @param {string} name @param {number} dataType @param {number[]} dims @param {ArrayBufferView} values */
  #initializer(name, dataType, dims, values) {
    const rawData = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    this.#graph.initializers.push({ name, dataType, dims, rawData });
  }
}

/** @param {string} name @param {number} elementType @param {number[]} dims */
function value(name, elementType, dims) {
  return { name, type: { tensor: { elementType, shape: { dims: dims.map((dim) => ({ value: dim })) } } } };
}
