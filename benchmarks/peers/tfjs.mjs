// TensorFlow.js on WebGPU, which runs in browsers alone. Its packages are the page's scripts and make the global `tf`.
import { transpose } from "./problem.mjs";

/** @typedef {import("./problem.mjs").Problem} Problem */

/**
 * Elements of a table up to which gradients are measured: a gather's gradient is made as [H, N] by float atomics and
 * then transposed, which takes a software adapter half a minute at 2^24.
 */
const gradientLimit = 2 ** 22;

/**
 * @param {Problem} problem @param {"layer" | "routed"} part
 * @returns {Promise<import("./local-contender.mjs").Runner>}
 */
export async function tfjsRunner(problem, part) {
  const { tf } = /** @type {any} */ (globalThis);
  if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js has no WebGPU here");
  await tf.ready();
  const backend = tf.backend();
  const { tokens: T, hiddenSize: H, numExperts: N, topK: k, keys, intermediateSize: I } = problem;
  const kept = Math.min(k, keys);
  const matrix = (/** @type {Float32Array} */ data, /** @type {number[]} */ shape) => tf.tensor(data, shape);
  const weights = {
    x: matrix(problem.hiddenStates, [T, H]),
    routerX: matrix(transpose(problem.router.subarray(0, keys * H), keys, H), [H, keys]),
    routerY: matrix(transpose(problem.router.subarray(keys * H), keys, H), [H, keys]),
    downTable: matrix(problem.downTable, [N, H]),
    upTable: matrix(problem.upTable, [N, H]),
    ...(part === "layer" && {
      gate: matrix(transpose(problem.gate, I, H), [H, I]),
      up: matrix(transpose(problem.up, I, H), [H, I]),
      down: matrix(transpose(problem.down, H, I), [I, H]),
    }),
  };
  const gradOutput = matrix(problem.gradOutput, [T, H]);

  // values[t, at[t, n]] as a gather from the flat array, which has a gradient; there is no gather along an axis.
  const along = (values, at) => {
    const width = values.shape[1];
    const firsts = tf.reshape(tf.range(0, T * width, width, "int32"), [T, 1]);
    const flat = tf.reshape(tf.add(at, firsts), [-1]);
    return tf.reshape(tf.gather(tf.reshape(values, [-1]), flat), at.shape);
  };
  // The keys (i, j) of the chosen pairs. No gradient flows through the choice.
  const select = ({ x, routerX, routerY }) => {
    const top = (router) => tf.topk(tf.logSoftmax(tf.matMul(x, router)), kept);
    const ofX = top(routerX);
    const ofY = top(routerY);
    const sums = tf.add(tf.reshape(ofX.values, [T, kept, 1]), tf.reshape(ofY.values, [T, 1, kept]));
    const { values: scores, indices: pair } = tf.topk(tf.reshape(sums, [T, kept * kept]), k);
    const size = tf.scalar(kept, "int32");
    const rankX = tf.floorDiv(pair, size);
    const i = along(ofX.indices, rankX);
    const j = along(ofY.indices, tf.sub(pair, tf.mul(rankX, size)));
    return { i, j, weights: tf.exp(scores) };
  };
  const pairIds = (i, j) => tf.add(tf.mul(i, tf.scalar(keys, "int32")), j);
  const silu = (values) => tf.mul(values, tf.sigmoid(values));
  const combine = ({ x, downTable, upTable, gate, up, down }, ids, routingWeights) => {
    const rows = (table) => tf.gather(table, ids);
    const dots = tf.reshape(tf.matMul(rows(downTable), tf.reshape(x, [T, H, 1])), [T, k]);
    const coefficients = tf.reshape(tf.mul(silu(dots), routingWeights), [T, 1, k]);
    const routed = tf.reshape(tf.matMul(coefficients, rows(upTable)), [T, H]);
    if (part === "routed") return routed;
    return tf.add(routed, tf.matMul(tf.mul(silu(tf.matMul(x, gate)), tf.matMul(x, up)), down));
  };
  const forward = () =>
    tf.tidy(() => {
      const { i, j, weights: routingWeights } = select(weights);
      return combine(weights, pairIds(i, j), routingWeights);
    });
  // Differentiated with the choice given: the routing weights are gathered from the log-softmaxes again.
  const names = Object.keys(weights);
  const gradients = () =>
    tf.tidy(() => {
      const { i, j } = select(weights);
      const output = (...given) => {
        const all = Object.fromEntries(names.map((name, n) => [name, given[n]]));
        const logs = (router, keysOf) => along(tf.logSoftmax(tf.matMul(all.x, router)), keysOf);
        return combine(all, pairIds(i, j), tf.exp(tf.add(logs(all.routerX, i), logs(all.routerY, j))));
      };
      return tf.grads(output)(Object.values(weights), gradOutput);
    });
  /** What was enqueued so far, without reading it. */
  const finish = async () => {
    backend.submitQueue();
    await backend.device.queue.onSubmittedWorkDone();
  };
  return {
    forward: async () => {
      const result = forward();
      await finish();
      result.dispose();
    },
    output: async () => {
      const result = forward();
      const values = await result.data();
      result.dispose();
      return values;
    },
    ids: async () => {
      const ids = tf.tidy(() => {
        const { i, j } = select(weights);
        return pairIds(i, j);
      });
      const values = await ids.data();
      ids.dispose();
      return values;
    },
    ...(N * H <= gradientLimit && {
      gradient: async () => {
        const all = gradients();
        await finish();
        tf.dispose(all);
      },
    }),
    release: async () => tf.dispose([...Object.values(weights), gradOutput]),
  };
}
