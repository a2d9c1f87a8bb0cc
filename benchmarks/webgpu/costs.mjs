// What a layer costs besides time, by the backend's own counting: compilation, dispatches, memory.
import { webgpu } from "@flash-moe/backend-webgpu";
import { AtomicExperts, SharedMlp, SparseFfn } from "@flash-moe/ffn";
import { CartesianRouter } from "@flash-moe/router";
import { AdamW, estimateMemory, FlashMoE } from "flash-moe";

/** @typedef {import("../peers/problem.mjs").Size} Size */

/**
 * Each mode on a device of its own, so that nothing is compiled yet.
 * @param {GPU} gpu @param {{ prototype: GPUComputePassEncoder }} passes Dawn's class of compute passes @param {Size} size
 */
export async function measureCosts(gpu, passes, size) {
  const forward = await measureMode(gpu, passes, size, "forward");
  const train = await measureMode(gpu, passes, size, "train");
  return { ...size, forward, train };
}

/** @param {"forward" | "train"} mode "train": forward, backward with compact gradients of the tables, AdamW. */
async function measureMode(gpu, passes, size, mode) {
  const { tokens, hiddenSize, numExperts, topK } = size;
  const keys = Math.sqrt(numExperts);
  const intermediateSize = 2 * hiddenSize;
  const options = { hiddenSize, intermediateSize, keysX: keys, keysY: keys, topK, norm: "none" };
  const backend = await webgpu.open({ gpu });
  const layer = zeroLayer(backend, options);
  const x = backend.zeros([tokens, hiddenSize]);
  await backend.sync();

  const start = performance.now();
  await layer.warmup(tokens, { mode, tables: "compact" });
  const compileMilliseconds = performance.now() - start;

  const optimizer = mode === "train" ? await AdamW.create(layer.parameters()) : undefined;
  const dispatches = countDispatches(passes);
  if (optimizer === undefined) layer.forward(x).dispose();
  else {
    const recording = layer.record(x);
    const gradients = recording.backward(x, { tables: "compact" });
    optimizer.step(layer.parameters(), gradients.parameters, { learningRate: 1e-3 });
    gradients.dispose();
    recording.dispose();
  }
  await backend.sync();
  const { peakBytes } = backend.memory();
  const buffers = estimateMemory(options, tokens, { mode, tables: "compact" });
  // Inside the shared MLP: its gated intermediate, and backward both projections and their gradients in place.
  const insideMlp = 4 * tokens * intermediateSize * (mode === "forward" ? 1 : 3);
  const activationBytes = buffers.activationBytes + insideMlp;
  const tableBytes = buffers.totalBytes - buffers.activationBytes;
  await backend.dispose();
  return {
    compileMilliseconds,
    dispatches: dispatches.stop(),
    peakBytes,
    /** Parameters, and in training gradients and moments. */
    tableBytes,
    activationBytes,
    peakOfThese: peakBytes / (tableBytes + activationBytes),
  };
}

/** A layer whose weights are zero: nothing that is counted here depends on them. */
function zeroLayer(backend, { hiddenSize, intermediateSize, keysX, keysY, topK, norm }) {
  const zeros = (/** @type {number[]} */ ...shape) => backend.zeros(shape);
  const numExperts = keysX * keysY;
  return new FlashMoE(
    new CartesianRouter(
      { hiddenSize, keysX, keysY, topK, norm, normalizeWeights: false },
      { weight: zeros(keysX + keysY, hiddenSize) },
    ),
    new SparseFfn(
      new AtomicExperts(
        { hiddenSize, numExperts, activation: "silu" },
        { down: zeros(numExperts, hiddenSize), up: zeros(numExperts, hiddenSize) },
      ),
      new SharedMlp(
        { hiddenSize, intermediateSize, activation: "silu" },
        {
          gate: zeros(intermediateSize, hiddenSize),
          up: zeros(intermediateSize, hiddenSize),
          down: zeros(hiddenSize, intermediateSize),
        },
      ),
    ),
  );
}

/** Counts what is dispatched until `stop`. */
function countDispatches({ prototype }) {
  const names = /** @type {const} */ (["dispatchWorkgroups", "dispatchWorkgroupsIndirect"]);
  const originals = names.map((name) => prototype[name]);
  let count = 0;
  names.forEach((name, n) => {
    prototype[name] = function (...sizes) {
      count += 1;
      return originals[n].apply(this, sizes);
    };
  });
  return {
    stop() {
      names.forEach((name, n) => {
        prototype[name] = originals[n];
      });
      return count;
    },
  };
}

/** The costs of each size as rows of a table. @param {Awaited<ReturnType<typeof measureCosts>>[]} all */
export function tableOfCosts(all) {
  const header = ["flash-moe", "compile", "dispatches", "peak", "of tables and activations"];
  const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const rows = all.flatMap((size) =>
    /** @type {const} */ (["forward", "train"]).map((mode) => {
      const { compileMilliseconds, dispatches, peakBytes, peakOfThese } = size[mode];
      return [
        `T ${size.tokens}, H ${size.hiddenSize}, N ${size.numExperts}, ${mode}`,
        `${compileMilliseconds.toFixed(0)} ms`,
        String(dispatches),
        megabytes(peakBytes),
        peakOfThese.toFixed(3),
      ];
    }),
  );
  return [header, ...rows];
}
