import { type Backend, FlashMoeError } from "@flash-moe/core";
import type { ExpectedTime, NativeDevice } from "./addon.js";
import { toFlashMoeError } from "./native-error.js";

const devices = new WeakMap<Backend, NativeDevice>();

/** For the function below. */
export function rememberDevice(backend: Backend, device: NativeDevice): void {
  devices.set(backend, device);
}

/**
 * How long the device takes for what `work` enqueues on this backend, in milliseconds, by its own clock. Time in which
 * it waits for the host counts; enqueue something long before to have none.
 */
export async function deviceMilliseconds(backend: Backend, work: () => void): Promise<number> {
  const device = deviceOf(backend);
  return timed(async () => {
    const start = device.mark();
    work();
    const { milliseconds } = await device.elapsed(start, device.mark());
    return milliseconds;
  });
}

/** What the ways of ops are chosen by, beside sizes: how many multiprocessors there are, and the bytes of the L2 cache. */
export function deviceSizes(backend: Backend): { multiprocessors: number; cacheBytes: number } {
  const { multiprocessors, cacheBytes } = deviceOf(backend);
  return { multiprocessors, cacheBytes };
}

/**
 * For measuring: what the model of costs expects of each way in which an op that `work` enqueues could be done. The op
 * takes the one that is expected to be the quickest.
 */
export async function expectedTimes(backend: Backend, work: () => void): Promise<readonly ExpectedTime[]> {
  const device = deviceOf(backend);
  return timed(async () => {
    device.startTiming();
    try {
      work();
    } finally {
      await device.stopTiming();
    }
    return device.expectations();
  });
}

/**
 * For measuring: makes the ops of this backend go another way than the model of costs would choose, or gives the model
 * other rates, such as "experts=dense dense_chunk=2048" (native/runtime/tuning.h has all of them); "" is as it was.
 * INVALID_ARGUMENT for what is none of these; an op that cannot go the way then throws UNSUPPORTED.
 */
export function tune(backend: Backend, tuning: string): void {
  const device = deviceOf(backend);
  try {
    device.tune(tuning);
  } catch (error) {
    throw toFlashMoeError(error);
  }
}

function deviceOf(backend: Backend): NativeDevice {
  const device = devices.get(backend);
  if (device === undefined) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      "backend is not one that cuda.open() returned; takes one that is",
    );
  }
  if (backend.disposed) throw new FlashMoeError("DISPOSED", `backend ${backend.name} has been disposed`);
  return device;
}

async function timed<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw toFlashMoeError(error);
  }
}
