import type { Addon, NativeDeviceInfo } from "./addon.js";
import { describeDriver } from "./driver.js";
import { loadAddon } from "./load-addon.js";
import { nodeModules } from "./node.js";
import type { CudaOptions } from "./options.js";

/** The addon and a GPU that it has code for, or why not. */
export type Availability =
  | { readonly addon: Addon; readonly info: NativeDeviceInfo; readonly index: number }
  | { readonly reason: string };

/** What stands between these options and an open backend, if anything. Never throws. */
export function findDevice(options: CudaOptions): Availability {
  const loaded = loadAddon(options.binary);
  if ("reason" in loaded) return loaded;
  const { addon } = loaded;
  const { devices, driverCuda, refusal } = addon.probe();
  if (devices.length === 0) return { reason: refusal + whatElseIsKnown(driverCuda) };
  const index =
    options.device ??
    Math.max(
      0,
      devices.findIndex((info) => info.refusal === ""),
    );
  const info = devices[index];
  if (info === undefined) {
    const present = devices.length === 1 ? "one GPU, number 0" : `GPUs 0 to ${devices.length - 1}`;
    return { reason: `device is ${index}; this machine has ${present}` };
  }
  return info.refusal === "" ? { addon, info, index } : { reason: info.refusal };
}

/** What CUDA does not say when it has no device. */
function whatElseIsKnown(driverCuda: number): string {
  const node = nodeModules();
  const driver = node === undefined ? undefined : describeDriver(node);
  if (driver === undefined) return "";
  return driverCuda === 0
    ? `; the machine has ${driver}, so if this is a container, start it with its GPUs (docker run --gpus all)`
    : `; this is ${driver}`;
}
