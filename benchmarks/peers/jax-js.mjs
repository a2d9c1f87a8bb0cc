// jax-js: the same composition, jitted. Its arrays are consumed by the functions they are given to; `.ref` keeps one.
import { transpose } from "./problem.mjs";

/** @typedef {import("./problem.mjs").Problem} Problem */

/**
 * @param {"wasm" | "webgpu"} device @param {Problem} problem @param {"layer" | "routed"} part
 * @returns {Promise<import("./local-contender.mjs").Runner>}
 */
export async function jaxRunner(device, problem, part) {
  const jax = await import("@jax-js/jax");
  const { numpy: np, lax, nn } = jax;
  const found = await jax.init(device);
  if (!found.includes(device)) throw new Error(`jax-js has no ${device} here`);
  jax.defaultDevice(device);
  const { tokens: T, hiddenSize: H, numExperts: N, topK: k, keys, intermediateSize: I } = problem;
  const kept = Math.min(k, keys);
  const matrix = (/** @type {Float32Array} */ data, /** @type {number[]} */ shape) =>
    np.array(data, { shape, dtype: np.float32 });
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

  // The keys (i, j) of the chosen pairs. No gradient flows through the choice.
  const select = (x, routerX, routerY) => {
    const top = (router) => lax.topK(nn.logSoftmax(np.matmul(x.ref, router), -1), kept, -1);
    const [topX, indexX] = top(routerX);
    const [topY, indexY] = top(routerY);
    x.dispose();
    const sums = np.add(np.reshape(topX, [T, kept, 1]), np.reshape(topY, [T, 1, kept]));
    const [scores, pair] = lax.topK(np.reshape(sums, [T, kept * kept]), k, -1);
    const i = np.takeAlongAxis(indexX, np.floorDivide(pair.ref, kept), 1);
    const j = np.takeAlongAxis(indexY, np.remainder(pair, kept), 1);
    return { i, j, weights: np.exp(scores) };
  };
  const pairIds = (i, j) => np.add(np.multiply(i, keys), j);
  const combine = (given, ids, routingWeights) => {
    const { x, downTable, upTable, gate, up, down } = given;
    const downRows = np.take(downTable, ids.ref, 0);
    const upRows = np.take(upTable, ids, 0);
    const dots = np.reshape(np.matmul(downRows, np.reshape(x.ref, [T, H, 1])), [T, k]);
    const coefficients = np.multiply(nn.silu(dots), routingWeights);
    const routed = np.reshape(np.matmul(np.reshape(coefficients, [T, 1, k]), upRows), [T, H]);
    if (part === "routed") {
      x.dispose();
      return routed;
    }
    const gated = np.matmul(x.ref, gate);
    const shared = np.matmul(np.multiply(nn.silu(gated), np.matmul(x, up)), down);
    return np.add(routed, shared);
  };
  const forward = ({ routerX, routerY, ...given }) => {
    const { i, j, weights: routingWeights } = select(given.x.ref, routerX, routerY);
    return combine(given, pairIds(i, j), routingWeights);
  };
  // Differentiated with the choice given: the routing weights are gathered from the log-softmaxes again.
  const loss = ({ routerX, routerY, ...given }, i, j, gradient) => {
    const logs = (router, keysOf) =>
      np.takeAlongAxis(nn.logSoftmax(np.matmul(given.x.ref, router), -1), keysOf, 1);
    const routingWeights = np.exp(np.add(logs(routerX, i.ref), logs(routerY, j.ref)));
    return np.sum(np.multiply(combine(given, pairIds(i, j), routingWeights), gradient));
  };

  const refs = () => Object.fromEntries(Object.entries(weights).map(([name, array]) => [name, array.ref]));
  const jitted = jax.jit(forward);
  const chosen = jax.jit(({ x, routerX, routerY }) => {
    const { i, j, weights: routingWeights } = select(x, routerX, routerY);
    routingWeights.dispose();
    return [i, j];
  });
  const choose = () =>
    chosen({ x: weights.x.ref, routerX: weights.routerX.ref, routerY: weights.routerY.ref });
  const gradOutput = matrix(problem.gradOutput, [T, H]);
  // Not jitted: 0.1.25 refuses to jit the scatter that the gradient of a gather is.
  const gradients = jax.grad(loss, { argnums: 0 });
  return {
    forward: async () => {
      const result = jitted(refs());
      await result.blockUntilReady();
      result.dispose();
    },
    output: async () => Float32Array.from(await jitted(refs()).data()),
    ids: async () => {
      return await pairIds(...choose()).data();
    },
    gradient: async () => {
      jax.tree.dispose(await jax.blockUntilReady(gradients(refs(), ...choose(), gradOutput.ref)));
    },
    release: async () => {
      for (const array of Object.values(weights)) array.dispose();
      gradOutput.dispose();
    },
  };
}
