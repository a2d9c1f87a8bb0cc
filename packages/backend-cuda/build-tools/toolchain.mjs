// The compilers of this machine.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** What is wrong with the machine or the sources, for people. */
export class BuildError extends Error {}

/** Machine code for these, where nvcc knows them: Ampere, its workstation kin, Ada, Hopper, Blackwell, its kin. */
const wantedArchitectures = [80, 86, 89, 90, 100, 120];

/**
 * Runs a program, and gives what it wrote.
 *
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ status: number | null, stdout: string, stderr: string }>}
 */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}

/**
 * @param {string} name
 * @param {readonly string[]} [elsewhere] folders besides the PATH
 * @returns {string | undefined}
 */
function findProgram(name, elsewhere = []) {
  for (const folder of [...(process.env.PATH ?? "").split(delimiter), ...elsewhere]) {
    if (folder && existsSync(join(folder, name))) return join(folder, name);
  }
  return undefined;
}

/** The C++ compiler: `CXX`, or g++, or clang++. */
function findCxx() {
  return process.env.CXX || findProgram("g++") || findProgram("clang++");
}

/** The CUDA compiler: `NVCC`, on the PATH, or where NVIDIA installs it. */
function findNvcc() {
  return process.env.NVCC || findProgram("nvcc", ["/usr/local/cuda/bin"]);
}

/**
 * @returns {Promise<{ compiler: string, version: string }>}
 */
export async function cxxToolchain() {
  const compiler = findCxx();
  if (!compiler) {
    throw new BuildError(
      "no C++ compiler: neither CXX is set nor are g++ or clang++ on the PATH (Debian: apt install g++)",
    );
  }
  const { stdout } = await run(compiler, ["--version"]);
  return { compiler, version: stdout.split("\n")[0] };
}

/**
 * @param {readonly number[] | undefined} architectures by default all that are wanted and known
 * @returns {Promise<{ compiler: string, version: string, release: string, architectures: readonly number[], cxx: string }>}
 */
export async function nvccToolchain(architectures) {
  const compiler = findNvcc();
  if (!compiler) {
    throw new BuildError(
      "no nvcc: the addon needs the CUDA toolkit 12 or newer (NVCC names the compiler, if it is not on the PATH); " +
        "without it, --shim builds the kernels for the CPU",
    );
  }
  const { compiler: cxx } = await cxxToolchain();
  const { stdout } = await run(compiler, ["--version"]);
  const release = /release (\d+\.\d+)/.exec(stdout)?.[1] ?? "";
  if (Number.parseInt(release, 10) < 12)
    throw new BuildError(`${compiler} is CUDA ${release}; 12 or newer is needed`);
  const { stdout: list } = await run(compiler, ["--list-gpu-code"]);
  const known = new Set([...list.matchAll(/sm_(\d+)/g)].map(([, number]) => Number(number)));
  const unknown = architectures?.filter((architecture) => !known.has(architecture)) ?? [];
  if (unknown.length) throw new BuildError(`nvcc ${release} does not know sm_${unknown.join(", sm_")}`);
  return {
    compiler,
    cxx,
    release,
    version: stdout.trim().split("\n").at(-1) ?? release,
    architectures: architectures ?? wantedArchitectures.filter((architecture) => known.has(architecture)),
  };
}
