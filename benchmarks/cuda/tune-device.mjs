// What the model of costs is made of: how fast rows are gathered from tables of which the L2 cache holds all or a part,
// and what a launch costs, alone and in a graph.
import { deviceMilliseconds, tune } from "@flash-moe/backend-cuda";
import { median } from "../statistics.mjs";
import { callOf } from "./tune-case.mjs";

const sizeless = { experts: 0, topK: 0, keys: 0, inner: 0, ways: [], name: "" };

/**
 * `before` keeps the device busy until the work is enqueued, so that its time has no waiting for the host in it.
 *
 * @param {import("@flash-moe/core").Backend} backend @param {() => void} before @param {() => void} work
 */
async function medianMilliseconds(backend, before, work) {
  work();
  const found = [];
  for (let n = 0; n < 9; n++) {
    before();
    found.push(await deviceMilliseconds(backend, work));
  }
  return median(found);
}

/**
 * Bytes of rows per second, by the bytes of both tables, when the same call came just before.
 *
 * @param {import("@flash-moe/core").Backend} backend @param {boolean} tiny
 */
export async function gatherRates(backend, tiny) {
  const found = [];
  tune(backend, "experts=fused");
  for (const megabytes of tiny ? [0.125] : [4, 8, 16, 24, 32, 40, 48, 64, 96, 128, 256, 512]) {
    const hidden = tiny ? 64 : 1024;
    const [tokens, topK] = tiny ? [4, 4] : [4096, 64];
    const experts = (megabytes * 2 ** 20) / (4 * hidden);
    const call = callOf(backend, {
      ...sizeless,
      kind: "experts",
      op: "forward",
      dtype: "bf16",
      tokens,
      hidden,
      experts,
      topK,
    });
    const seconds = (await medianMilliseconds(backend, call.work, call.work)) / 1000;
    found.push({ tableBytes: experts * hidden * 4, bytesPerSecond: (tokens * topK * hidden * 4) / seconds });
    call.dispose();
  }
  tune(backend, "");
  return found;
}

/**
 * Microseconds of one call of many in a row, the host's and the device's: an op of one kernel, and one of two, without a
 * graph and with one.
 *
 * @param {import("@flash-moe/core").Backend} backend that makes no graphs @param {import("@flash-moe/core").Backend} withGraphs
 * @param {boolean} tiny
 */
export async function launchCosts(backend, withGraphs, tiny) {
  const small = { ...sizeless, op: /** @type {const} */ ("forward"), dtype: /** @type {const} */ ("bf16") };
  const one = { ...small, kind: /** @type {const} */ ("linear"), tokens: 1, hidden: 64, inner: 64 };
  const two = { ...small, kind: /** @type {const} */ ("mlp"), tokens: 1, hidden: 64, inner: 64 };
  return {
    plain: await costOf(backend, one, tiny),
    "two kernels": await costOf(backend, two, tiny),
    "two kernels in a graph": await costOf(withGraphs, two, tiny),
  };
}

/** @param {import("@flash-moe/core").Backend} backend @param {import("./tune-ways.mjs").TuneCase} size @param {boolean} tiny */
async function costOf(backend, size, tiny) {
  const count = tiny ? 3 : 100;
  const call = callOf(backend, size);
  const spare = [0, 1].map(() => backend.alloc("f32", tiny ? 16 : 2 ** 27));
  const long = () => {
    for (let n = 0; n < 4; n++) backend.copy(spare[0], spare[1]);
  };
  const many = () => {
    for (let n = 0; n < count; n++) call.work();
  };
  many();
  await backend.sync();
  const host = [];
  for (let n = 0; n < (tiny ? 1 : 9); n++) {
    const start = performance.now();
    many();
    host.push(performance.now() - start);
    await backend.sync();
  }
  const device = await medianMilliseconds(backend, long, many);
  call.dispose();
  for (const buffer of spare) buffer.dispose();
  return {
    deviceMicroseconds: (1000 * device) / count,
    hostMicroseconds: (1000 * median(host)) / count,
  };
}
