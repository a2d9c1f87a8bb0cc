import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type CudaOptions, cuda } from "@flash-moe/backend-cuda";
import type { Backend } from "@flash-moe/core";
import { requiredBackends } from "@flash-moe/reference/conformance";
import { it } from "vitest";

/** What FLASH_MOE_REQUIRE calls the build of the addon that computes on the CPU. */
const name = "cuda-shim";

const packageFolder = fileURLToPath(new URL("../..", import.meta.url));

/** The binary, or why there is none. */
export type Shim = { readonly binary: string } | { readonly reason: string };

/** Builds the addon with the CPU twin of CUDA, as far as it is not built. */
export function buildShim(sanitized = false): Shim {
  const build = spawnSync(
    process.execPath,
    ["build.mjs", "--shim", "--quiet", ...(sanitized ? ["--sanitize"] : [])],
    { cwd: packageFolder, encoding: "utf8" },
  );
  if (build.status !== 0) return { reason: `the addon was not built: ${build.stderr.trim()}` };
  const folder = sanitized ? "shim-address" : "shim";
  return { binary: `${packageFolder}build/${folder}/flash_moe_cuda.node` };
}

export const shim: Shim = buildShim();

export const shimRequired: boolean = requiredBackends(process.env.FLASH_MOE_REQUIRE).has(name);

/** `it`, for tests that need the shim: skipped where there is no compiler, unless it is required. */
export const itOnShim: typeof it = it.skipIf("reason" in shim && !shimRequired) as typeof it;

export function shimBinary(): string {
  if ("reason" in shim) throw new Error(shim.reason);
  return shim.binary;
}

/** A backend that computes with the kernels of CUDA on the CPU. */
export function openShim(options: CudaOptions = {}): Promise<Backend> {
  return cuda.open({ binary: shimBinary(), ...options });
}
