// One op at one size, each way.
import { deviceMilliseconds, expectedTimes, tune } from "@flash-moe/backend-cuda";
import { timeKernels } from "@flash-moe/core";
import { median } from "../statistics.mjs";
import { inputsOf, workOf } from "./work.mjs";

/** A part of the first output that is compared. */
const comparedElements = 2 ** 16;

/**
 * @typedef {import("@flash-moe/core").Backend} Backend
 * @typedef {{ way: string, microseconds: number, warm: number, samples: number, kernels: Record<string, number>,
 *   difference: number }} WayResult  microseconds of the device, with other things in the caches and warm; of each
 *   kernel; the largest difference to the usual way's output by its largest value
 * @typedef {{ name: string, kind: string, op: string, ways: (WayResult | { way: string, error: string })[],
 *   expected: Record<string, number>, predictions: Record<string, string> }} CaseResult
 *   expected: microseconds by way, by the model as it is; predictions: the way that other rates would choose, by the rates
 */

/**
 * @param {Backend} backend @param {() => void} flush @param {import("./tune-ways.mjs").TuneCase} size
 * @param {string[]} ways @param {number} samples @param {Record<string, number> | undefined} rates that were measured
 * @returns {Promise<Omit<CaseResult, "name">>}
 */
export async function measureCase(backend, flush, size, ways, samples, rates) {
  const call = callOf(backend, size);
  /** @type {CaseResult["ways"]} */
  const found = [];
  try {
    /** @type {Float32Array | undefined} */
    let usual;
    for (const way of ["", ...ways]) {
      try {
        tune(backend, way);
        const { output, ...times } = await measureWay(backend, flush, call, samples);
        usual ??= output;
        found.push({ way, ...times, difference: difference(output, usual) });
      } catch (error) {
        if (!(error instanceof Error && "code" in error && passing.has(String(error.code)))) throw error;
        found.push({ way, error: error.message });
      }
    }
    tune(backend, "");
    /** @type {Record<string, number>} */
    const expected = {};
    for (const { way, nanoseconds } of await expectedTimes(backend, call.work))
      expected[way] ??= nanoseconds / 1000;
    const predictions =
      Object.keys(expected).length === 0 || rates === undefined
        ? {}
        : await predict(backend, call.work, rates);
    return { kind: size.kind, op: size.op, ways: found, expected, predictions };
  } finally {
    tune(backend, "");
    call.dispose();
  }
}

/** A way that there is not, or that this size or this device cannot go. */
const passing = new Set(["INVALID_ARGUMENT", "UNSUPPORTED", "OUT_OF_MEMORY"]);

/** @param {Backend} backend @param {() => void} flush @param {ReturnType<typeof callOf>} call @param {number} samples */
async function measureWay(backend, flush, call, samples) {
  call.work();
  const cold = [];
  const warm = [];
  for (let n = 0; n < samples; n++) {
    flush();
    cold.push(await deviceMilliseconds(backend, call.work));
    flush();
    call.work();
    warm.push(await deviceMilliseconds(backend, call.work));
    // A slow way needs no more to be known as slow.
    if (cold[0] > 20 && n > 0) break;
  }
  flush();
  /** @type {Record<string, number>} */
  const kernels = {};
  for (const { kernel, nanoseconds } of await timeKernels(backend, call.work)) {
    kernels[kernel] = (kernels[kernel] ?? 0) + nanoseconds / 1000;
  }
  const output = await call.read();
  return {
    microseconds: 1000 * median(cold),
    warm: 1000 * median(warm),
    samples: cold.length,
    kernels,
    output,
  };
}

/** What the experts' model would choose with the rates that were measured, and with shares of them. */
async function predict(/** @type {Backend} */ backend, /** @type {() => void} */ work, rates) {
  /** @type {Record<string, string>} */
  const chosen = {};
  for (const share of [0, 0.35, 0.5, 0.65, 0.8, 0.95]) {
    for (const cache of share === 0 ? [0] : [0.7, 0.85, 1]) {
      for (const tensor of share === 0 ? [0] : [0.6, 0.8, 1]) {
        const tuned =
          share === 0
            ? ""
            : rateText({
                ...rates,
                cache_share: share,
                cache: cache * rates.cache,
                tensor: tensor * rates.tensor,
              });
        tune(backend, tuned);
        const expected = await expectedTimes(backend, work);
        const ways = expected.filter(({ way }) => !way.includes("="));
        chosen[tuned] = ways.reduce((best, other) =>
          other.nanoseconds < best.nanoseconds ? other : best,
        ).way;
      }
    }
  }
  return chosen;
}

/** @param {Record<string, number>} rates */
function rateText(rates) {
  return Object.entries(rates)
    .map(([name, value]) => `${name}=${Number(value.toPrecision(3))}`)
    .join(" ");
}

/** @param {Float32Array} actual @param {Float32Array} expected */
function difference(actual, expected) {
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const delta = Math.abs(actual[i] - expected[i]);
    if (Number.isNaN(delta)) return Number.NaN;
    worst = Math.max(worst, delta);
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return scale === 0 ? worst : worst / scale;
}

/**
 * The op with its buffers.
 *
 * @param {Backend} backend @param {import("./tune-ways.mjs").TuneCase} size
 */
export function callOf(backend, size) {
  /** @type {import("@flash-moe/core").Tensor[]} */
  const made = [];
  const track = (/** @type {import("@flash-moe/core").Tensor} */ tensor) => {
    made.push(tensor);
    return tensor;
  };
  /** @type {Parameters<typeof workOf>[2]} */
  const inputs = {};
  const { own, shared } = inputsOf(size);
  for (const [key, { values, shape, dtype }] of Object.entries({ ...own, ...shared })) {
    inputs[key] = track(backend.upload(values, shape, dtype, key));
  }
  // What it allocates ends with the call.
  const owner = /** @type {Backend} */ ({
    ops: backend.ops,
    zeros: (/** @type {Parameters<Backend["zeros"]>} */ ...shape) => track(backend.zeros(...shape)),
  });
  const { calls, results } = workOf(owner, size, inputs);
  return {
    work: calls[size.op],
    async read() {
      const { output, weights, grad_hidden_states } = results();
      const tensor = size.op === "backward" ? grad_hidden_states : (output ?? weights);
      const values = await backend.read(tensor.buffer, 0, Math.min(comparedElements, tensor.buffer.length));
      return toFloats(values, tensor.dtype);
    },
    dispose() {
      for (const tensor of made) tensor.dispose();
    },
  };
}

/** @param {ArrayLike<number>} values @param {string} dtype */
function toFloats(values, dtype) {
  if (dtype !== "bf16" || !(values instanceof Uint16Array)) return Float32Array.from(values);
  const words = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) words[i] = values[i] << 16;
  return new Float32Array(words.buffer);
}
