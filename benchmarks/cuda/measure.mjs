// How long the device takes, by its own clock, and how long the host takes to ask.
import { deviceMilliseconds } from "@flash-moe/backend-cuda";
import { median } from "../statistics.mjs";
import { uniform } from "./tensors.mjs";

/**
 * Medians in microseconds, of one call:
 * - cold: the caches of the device hold something else;
 * - warm: the same call came just before;
 * - host: what the calling thread spends on it;
 * - wall: of many calls in a row, host and device together.
 *
 * Before each measured call, enough else is enqueued that the device is still at it when the call arrives: its time
 * has no waiting for the host in it.
 *
 * @param {import("@flash-moe/core").Backend} backend @param {() => void} flush @param {() => void} work
 * @param {number} seconds
 */
export async function measureCall(backend, flush, work, seconds) {
  for (let n = 0; n < 3; n++) work();
  await backend.sync();
  const first = await one(backend, flush, work, false);
  const count = Math.max(5, Math.min(51, Math.floor((1000 * seconds) / (3 * (first + 0.5)))));
  const cold = [];
  const warm = [];
  for (let n = 0; n < count; n++) {
    cold.push(await one(backend, flush, work, false));
    warm.push(await one(backend, flush, work, true));
  }
  const host = [];
  const wall = [];
  const calls = Math.max(1, Math.min(50, Math.ceil(20 / (median(warm) + 0.01))));
  for (let n = 0; n < Math.min(count, 15); n++) {
    const start = performance.now();
    for (let call = 0; call < calls; call++) work();
    host.push((performance.now() - start) / calls);
    await backend.sync();
    wall.push((performance.now() - start) / calls);
  }
  const micro = (/** @type {number[]} */ values) => 1000 * median(values);
  return { cold: micro(cold), warm: micro(warm), host: micro(host), wall: micro(wall), samples: count };
}

/**
 * @param {import("@flash-moe/core").Backend} backend @param {() => void} flush @param {() => void} work
 * @param {boolean} warm
 */
function one(backend, flush, work, warm) {
  flush();
  if (warm) work();
  return deviceMilliseconds(backend, work);
}

/**
 * What the device itself reaches: bytes read and written per second of a copy that no cache holds and of one that a
 * cache does, operations per second of a large matrix product.
 *
 * @param {import("@flash-moe/core").Backend} backend @param {number} side of the matrices @param {number} bytes of the copy
 * @returns {Promise<import("./cases.mjs").Rates>}
 */
export async function measureRates(backend, side, bytes) {
  const best = async (/** @type {() => void} */ work) => {
    for (let n = 0; n < 3; n++) work();
    const times = [];
    for (let n = 0; n < 15; n++) times.push(await deviceMilliseconds(backend, work));
    return median(times) / 1000;
  };
  const copyOf = async (/** @type {number} */ length) => {
    const source = backend.alloc("f32", length / 4);
    const target = backend.alloc("f32", length / 4);
    const times = length >= bytes ? 1 : 20;
    const seconds = await best(() => {
      for (let n = 0; n < times; n++) backend.copy(source, target);
    });
    source.dispose();
    target.dispose();
    return (2 * length * times) / seconds;
  };
  /** @type {Record<string, number>} */
  const matmul = {};
  for (const dtype of /** @type {const} */ (["f32", "bf16"])) {
    // Not of zeros, which take less power and so less time.
    const numbers = uniform([side, side], dtype, 1, 1).values;
    const [a, b, output] = [0, 1, 2].map(() => backend.alloc(dtype, side * side));
    for (const operand of [a, b]) backend.write(operand, numbers);
    const call = { rows: side, inner: side, columns: side, a, b, transposeB: true, output };
    matmul[dtype] = (2 * side ** 3) / (await best(() => backend.ops.linear(call)));
    for (const buffer of [a, b, output]) buffer.dispose();
  }
  return { copy: await copyOf(bytes), cache: await copyOf(bytes / 64), matmul };
}
