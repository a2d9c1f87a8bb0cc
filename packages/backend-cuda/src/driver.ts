import type { NodeModules } from "./node.js";

/** Where the NVIDIA kernel module tells its version; in a container that of its host. */
const versionFile = "/proc/driver/nvidia/version";

/** The driver under Windows, as Linux sees it in WSL. */
const wslDriver = "/usr/lib/wsl/lib/libcuda.so.1";

/** "580.65.06"; "" if there is a driver that does not say; undefined if there is none. Loads and starts nothing. */
export function driverVersion({ fs }: NodeModules): string | undefined {
  try {
    return /\b\d{3,}\.\d+(\.\d+)?\b/.exec(fs.readFileSync(versionFile, "utf8"))?.[0] ?? "";
  } catch {
    return fs.existsSync(wslDriver) ? "" : undefined;
  }
}

/** "has NVIDIA driver 580.65.06" and so on, after "this machine". */
export function describeDriver(node: NodeModules): string {
  const version = driverVersion(node);
  if (version === undefined) return "has no NVIDIA driver either";
  return version === "" ? "does have an NVIDIA driver" : `does have NVIDIA driver ${version}`;
}
