import { type Addon, interfaceVersion } from "./addon.js";
import { describeDriver } from "./driver.js";
import { type NodeModules, nodeModules } from "./node.js";

const platformPackage = "@flash-moe/backend-cuda-linux-x64";
const binaryName = "flash_moe_cuda.node";
const noDriver = "no NVIDIA driver";

/** The addon, or why there is none. */
export type LoadedAddon = { readonly addon: Addon } | { readonly reason: string };

/** Loads the addon of this machine, or the one at `binary`. Never throws, and nothing is loaded before it is called. */
export function loadAddon(binary?: string): LoadedAddon {
  const node = nodeModules();
  if (node === undefined) {
    return { reason: "CUDA needs an addon of Node.js, and this runtime (a browser?) does not load addons" };
  }
  const { platform, arch } = globalThis.process;
  if (platform !== "linux" || arch !== "x64") {
    return { reason: `the CUDA backend runs on linux x64; this is ${platform} ${arch}` };
  }
  const load = node.module.createRequire(import.meta.url);
  const path = binary ?? findBinary(load);
  if (path === undefined) return { reason: noBinary(node) };
  let addon: Addon;
  try {
    addon = load(path) as Addon;
  } catch (error) {
    return { reason: `${path} does not load: ${explainLoadError(error)}` };
  }
  if (addon.interfaceVersion !== interfaceVersion) {
    return {
      reason:
        `${path} is of another version of @flash-moe/backend-cuda (its interface is ` +
        `${String(addon.interfaceVersion)}; takes ${interfaceVersion}): install both packages in one version`,
    };
  }
  return { addon };
}

/** A local build, which is newer than what is installed where there is one, else the platform package. */
function findBinary(load: NodeJS.Require): string | undefined {
  for (const candidate of [`../build/cuda/${binaryName}`, `${platformPackage}/${binaryName}`]) {
    try {
      return load.resolve(candidate);
    } catch {
      // Not there.
    }
  }
  return undefined;
}

function noBinary(node: NodeModules): string {
  const driver = describeDriver(node);
  const musl =
    node.fs.existsSync("/lib/ld-musl-x86_64.so.1") && !node.fs.existsSync("/lib64/ld-linux-x86-64.so.2");
  if (musl) {
    return `there is no binary of the CUDA backend for musl, and this machine has no glibc (it has ${driver ?? noDriver})`;
  }
  const missing = `the package ${platformPackage} with the binary is not installed`;
  // The package alone would not help.
  if (driver === undefined) return `this machine has ${noDriver}, and ${missing}`;
  return (
    `${missing}: npm install ${platformPackage}, or in a clone of flash-moe build it: pnpm build:cuda, which needs nvcc ` +
    `(this machine has ${driver})`
  );
}

/** What the dynamic linker said, and what that means. */
function explainLoadError(error: unknown): string {
  const message = error instanceof Error ? error.message.split("\n")[0] : String(error);
  if (/GLIBC_|GLIBCXX_|CXXABI_/.test(message))
    return `this system's C library is too old for it (${message})`;
  return message;
}
