import { type Backend, FlashMoeError } from "@flash-moe/core";
import type { NativeDevice } from "./addon.js";
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
