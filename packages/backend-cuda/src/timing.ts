import { type Backend, FlashMoeError } from "@flash-moe/core";
import type { KernelTime, NativeDevice } from "./addon.js";
import { toFlashMoeError } from "./native-error.js";

const devices = new WeakMap<Backend, NativeDevice>();

/** For the functions below. */
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

/** Each kernel that `work` runs on this backend, in order. Graphs are not used meanwhile. */
export async function kernelTimes(backend: Backend, work: () => void): Promise<readonly KernelTime[]> {
  const device = deviceOf(backend);
  return timed(async () => {
    device.startTiming();
    try {
      work();
    } catch (error) {
      await device.stopTiming().catch(() => {});
      throw error;
    }
    return (await device.stopTiming()).kernels;
  });
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
