// onnxruntime in two packages: onnxruntime-node (native code on the CPU, or its WebGPU provider) and
// onnxruntime-web (WebAssembly).
import { onnxModel } from "./onnx-model.mjs";

/** @typedef {import("./problem.mjs").Problem} Problem */

/** A model of at most 2 GiB holds its tables; larger ones are given with every call, without a copy on the CPU. */
const modelLimitBytes = 2 ** 31 - 2 ** 26;

/**
 * @param {"node-cpu" | "node-webgpu" | "web-wasm"} kind @param {number} threads
 * @param {Problem} problem @param {"layer" | "routed"} part
 * @returns {Promise<import("./local-contender.mjs").Runner>}
 */
export async function onnxruntimeRunner(kind, threads, problem, part) {
  const ort =
    kind === "web-wasm" ? await import("onnxruntime-web") : (await import("onnxruntime-node")).default;
  const { tokens, hiddenSize, numExperts } = problem;
  const tables = 8 * numExperts * hiddenSize + 8 * 2 ** 20 < modelLimitBytes;
  if (kind === "web-wasm") ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(onnxModel(problem, { part, tables }), {
    executionProviders: [kind === "node-webgpu" ? "webgpu" : kind === "node-cpu" ? "cpu" : "wasm"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
  });
  const tensor = (/** @type {Float32Array} */ data, /** @type {number[]} */ dims) =>
    new ort.Tensor("float32", data, dims);
  const feeds = {
    x: tensor(problem.hiddenStates, [tokens, hiddenSize]),
    ...(!tables && {
      down_table: tensor(problem.downTable, [numExperts, hiddenSize]),
      up_table: tensor(problem.upTable, [numExperts, hiddenSize]),
    }),
  };
  const run = async (/** @type {"output" | "ids"} */ name) => (await session.run(feeds, [name]))[name].data;
  return {
    forward: async () => {
      await run("output");
    },
    output: async () => /** @type {Float32Array} */ (await run("output")).slice(),
    ids: async () => Array.from(/** @type {BigInt64Array} */ (await run("ids")), Number),
    release: () => session.release(),
  };
}
