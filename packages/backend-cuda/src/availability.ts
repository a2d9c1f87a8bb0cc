import type { Addon, DriverReport, NativeDeviceInfo } from "./addon.js";
import { driverVersion } from "./driver.js";
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
  const report = addon.probe();
  const reason = driverReason(report);
  if (reason !== undefined) return { reason };
  const index = options.device ?? 0;
  const info = report.devices[index];
  if (info === undefined) {
    const count = report.devices.length;
    const present = count === 1 ? "one GPU, number 0" : `${count} GPUs, numbers 0 to ${count - 1}`;
    return { reason: `device is ${index}; this machine has ${present}` };
  }
  if (!info.supported) {
    return {
      reason:
        `${info.name} has compute capability ${dotted(info.computeCapability)}; ` +
        `takes ${dotted(report.minComputeCapability)} or newer`,
    };
  }
  return { addon, info, index };
}

/** Why the driver gives no devices. */
function driverReason(report: DriverReport): string | undefined {
  const { driverCuda, requiredCuda } = report;
  const needed = `CUDA ${cudaName(requiredCuda)} (driver ${driverFor(requiredCuda)} or newer)`;
  const node = nodeModules();
  const version = node === undefined ? undefined : driverVersion(node);
  if (driverCuda === 0) {
    return version === undefined
      ? `there is no NVIDIA driver on this machine; needs one that supports ${needed}`
      : `this machine has ${named(version)}, but its library libcuda.so.1 cannot be loaded here; a container ` +
          "gets it when it is started with its GPUs (docker run --gpus all)";
  }
  if (driverCuda < requiredCuda) {
    return `${named(version)} supports CUDA ${cudaName(driverCuda)}; needs ${needed}`;
  }
  if (report.devices.length > 0) return undefined;
  const { CUDA_VISIBLE_DEVICES: visible } = globalThis.process.env;
  const hint = visible === undefined ? "" : `; CUDA_VISIBLE_DEVICES is "${visible}"`;
  return `${named(version)} finds no GPU (${report.error}${hint})`;
}

function named(version: string | undefined): string {
  return version ? `NVIDIA driver ${version}` : "an NVIDIA driver";
}

/** 12040 is 12.4. */
function cudaName(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

/** The first driver of a CUDA major version, by NVIDIA's table of compatibility. */
function driverFor(cuda: number): number {
  return cuda >= 13000 ? 580 : 525;
}

function dotted(computeCapability: number): string {
  return `${Math.floor(computeCapability / 10)}.${computeCapability % 10}`;
}
