/** What the NVIDIA driver leaves in the file system: Linux, Linux under Windows, Windows. */
const traces = [
  "/proc/driver/nvidia/version",
  "/usr/lib/wsl/lib/libcuda.so.1",
  "C:\\Windows\\System32\\nvcuda.dll",
];

/** Whether this machine has an NVIDIA driver, in a few words for people. Loads nothing and starts no process. */
export function describeDriver(): string {
  // Not an import: this package also loads in a browser, as a part of flash-moe.
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (!fs) return "this runtime has no file system to find an NVIDIA driver in";
  return traces.some((path) => fs.existsSync(path))
    ? "this machine does have an NVIDIA driver"
    : "no NVIDIA driver was found here either";
}
