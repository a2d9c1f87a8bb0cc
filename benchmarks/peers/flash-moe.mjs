// flash-moe itself, on any of its backends.
import { AtomicExperts, SharedMlp, SparseFfn } from "@flash-moe/ffn";
import { CartesianRouter } from "@flash-moe/router";
import { FlashMoE } from "flash-moe";

/** @typedef {import("./problem.mjs").Problem} Problem */

/**
 * @param {import("flash-moe").Backend} backend @param {Problem} problem @param {"layer" | "routed"} part
 * @returns {Promise<import("./local-contender.mjs").Runner>}
 */
export async function flashMoeRunner(backend, problem, part) {
  const { tokens, hiddenSize, intermediateSize, numExperts, topK, keys } = problem;
  const upload = (/** @type {Float32Array} */ data, /** @type {number[]} */ shape) =>
    backend.upload(data, shape);
  const router = new CartesianRouter(
    { hiddenSize, keysX: keys, keysY: keys, topK, norm: "none", normalizeWeights: false },
    { weight: upload(problem.router, [2 * keys, hiddenSize]) },
  );
  const experts = new AtomicExperts(
    { hiddenSize, numExperts, activation: "silu" },
    {
      down: upload(problem.downTable, [numExperts, hiddenSize]),
      up: upload(problem.upTable, [numExperts, hiddenSize]),
    },
  );
  const states = upload(problem.hiddenStates, [tokens, hiddenSize]);
  const gradOutput = upload(problem.gradOutput, [tokens, hiddenSize]);
  /** As automatic differentiation makes them, up to a size where they are gigabytes. */
  const dense = numExperts > 100_000 ? "compact" : "dense";
  const layer =
    part === "layer"
      ? new FlashMoE(
          router,
          new SparseFfn(
            experts,
            new SharedMlp(
              { hiddenSize, intermediateSize, activation: "silu" },
              {
                gate: upload(problem.gate, [intermediateSize, hiddenSize]),
                up: upload(problem.up, [intermediateSize, hiddenSize]),
                down: upload(problem.down, [hiddenSize, intermediateSize]),
              },
            ),
          ),
        )
      : undefined;

  const forward = () => {
    if (layer !== undefined) return layer.forward(states);
    const routing = router.forward(states);
    const output = experts.forward(states, routing);
    routing.dispose();
    return output;
  };
  const record = () => {
    if (layer !== undefined) {
      const recording = layer.record(states);
      return {
        backward: (tables) => recording.backward(gradOutput, { tables }).dispose(),
        dispose: () => recording.dispose(),
      };
    }
    const recording = router.record(states);
    return {
      backward: (tables) => {
        const { gradients, weights } = experts.backward(states, recording.routing, gradOutput, { tables });
        recording.backward({ weights }).dispose();
        gradients.dispose();
        weights.dispose();
      },
      dispose: () => {
        recording.dispose();
      },
    };
  };
  let saved = record();
  return {
    forward: async () => {
      forward().dispose();
      await backend.sync();
    },
    output: async () => {
      const output = forward();
      const values = await output.read();
      output.dispose();
      return /** @type {Float32Array} */ (values);
    },
    ids: async () => {
      const routing = router.forward(states);
      const ids = await routing.ids.read();
      routing.dispose();
      return ids;
    },
    gradient: async () => {
      saved.dispose();
      saved = record();
      saved.backward(dense);
      await backend.sync();
    },
    // As a step of training makes it: gradients of the rows that were used.
    backward: async () => {
      saved.backward("compact");
      await backend.sync();
    },
    release: async () => {
      saved.dispose();
      layer?.dispose();
      if (layer === undefined) {
        router.dispose();
        experts.dispose();
      }
      states.dispose();
      gradOutput.dispose();
    },
  };
}
