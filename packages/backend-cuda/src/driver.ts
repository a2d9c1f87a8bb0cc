import type { NodeModules } from "./node.js";

/** Where the NVIDIA kernel module tells its version; in a container that of its host. */
const versionFile = "/proc/driver/nvidia/version";

/** The driver under Windows, as Linux sees it in WSL. */
const wslDriver = "/usr/lib/wsl/lib/libcuda.so.1";

/** "580.65.06"; "" if there is a driver that does not say; undefined if there is none. Loads and starts nothing. */
function driverVersion({ fs }: NodeModules): string | undefined {
  try {
    return /\b\d{3,}\.\d+(\.\d+)?\b/.exec(fs.readFileSync(versionFile, "utf8"))?.[0] ?? "";
  } catch {
    return fs.existsSync(wslDriver) ? "" : undefined;
  }
}

/** "NVIDIA driver 580.65.06" or "an NVIDIA driver"; undefined if there is none. */
export function describeDriver(node: NodeModules): string | undefined {
  const version = driverVersion(node);
  return version === "" ? "an NVIDIA driver" : version && `NVIDIA driver ${version}`;
}
