// From the sources of native/ to the addon, or to the programs that test it.
import { mkdirSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
// @boundaries-ignore a build happens in a clone, and this is its lock
import { acquireLock } from "../../../tools/lib/lock.mjs";
import { compileAll, link } from "./objects.mjs";
import { BuildError, cxxToolchain, nvccToolchain } from "./toolchain.mjs";

const packageFolder = fileURLToPath(new URL("..", import.meta.url));
const native = join(packageFolder, "native");

/** PTX for all devices that no machine code is for, of the oldest that the kernels support. */
const ptxArchitecture = 80;

const sanitizers = {
  address: ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
  thread: ["-fsanitize=thread", "-fno-omit-frame-pointer"],
};

/**
 * Node unloads what only a worker thread had loaded when that ends; CUDA's runtime has called functions of the process by
 * then (at its exit, at the end of a thread) that would be gone.
 */
const staysLoaded = "-znodelete";

/**
 * @typedef {object} BuildResult
 * @property {string[]} files the addon, or the programs
 * @property {string[]} objects with the compiler's messages beside them
 * @property {string} release of nvcc; empty for the shim
 */

/**
 * @param {object} options
 * @param {"cuda" | "shim"} options.target
 * @param {string} [options.sanitize] "address" (and undefined behaviour) or "thread"; of the shim
 * @param {boolean} [options.drivers] the programs of native/test, of the shim
 * @param {readonly number[]} [options.architectures] of the GPUs: 90 for 9.0
 * @param {number} [options.jobs] compilers at once
 * @param {(line: string) => void} [options.log]
 * @returns {Promise<BuildResult>}
 */
export async function build({ target, sanitize, drivers = false, architectures, jobs, log = () => {} }) {
  if (sanitize !== undefined && (target !== "shim" || !(sanitize in sanitizers))) {
    throw new BuildError(`cannot sanitize ${target} by "${sanitize}": --shim --sanitize=address or =thread`);
  }
  if (drivers && target !== "shim") throw new BuildError("the programs of native/test are built with --shim");
  const folder = join(packageFolder, "build", [target, sanitize].filter(Boolean).join("-"));
  mkdirSync(folder, { recursive: true });
  const release = await acquireLock(`${folder}.lock`, (pid) =>
    log(`waiting for the build of process ${pid}`),
  );
  try {
    const options = { folder, jobs, log };
    return target === "cuda"
      ? await buildCuda(architectures, options)
      : await buildShim(sanitize, drivers, options);
  } finally {
    release();
  }
}

async function buildCuda(architectures, { folder, jobs, log }) {
  const nvcc = await nvccToolchain(architectures);
  const args = [
    "-std=c++17",
    "-O3",
    "-I.",
    ...nodeArguments(),
    ...nvcc.architectures.map((number) => machineCodeArgument(number, nvcc.architectures)),
    `-gencode=arch=compute_${ptxArchitecture},code=compute_${ptxArchitecture}`,
    `-DFLASH_MOE_MACHINE_CODE=${nvcc.architectures.join(",").replaceAll(",", "\\,")}`,
    `-DFLASH_MOE_PTX=${ptxArchitecture}`,
    "-Xptxas=-v",
    "-Xfatbin=-compress-all",
    `-ccbin=${nvcc.cxx}`,
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
  ];
  const list = sources(["runtime", "ops", "addon"], /\.(cc|cu)$/);
  const objects = await compileAll(
    list.map((source) => ({ source, compiler: nvcc.compiler, version: nvcc.version, args })),
    folder,
    { cwd: native, parallel: jobs, log },
  );
  const addon = join(folder, "flash_moe_cuda.node");
  await link(addon, objects, nvcc.compiler, [
    "-shared",
    "-cudart=static",
    `-ccbin=${nvcc.cxx}`,
    "-Xcompiler=-static-libstdc++,-static-libgcc",
    // Nothing but Node's own entry is seen from outside, and the driver is opened when it is asked for.
    "-Xlinker=--exclude-libs=ALL",
    "-Xlinker=--gc-sections",
    "-Xlinker=-s",
    `-Xlinker=${staysLoaded}`,
    ...objects,
    "-o",
    addon,
  ]);
  return { files: [addon], objects, release: nvcc.release };
}

async function buildShim(sanitize, drivers, { folder, jobs, log }) {
  const cxx = await cxxToolchain();
  const flags = sanitize ? ["-O1", "-g", ...sanitizers[sanitize]] : ["-O2", "-g1"];
  const args = [
    "-std=c++17",
    ...flags,
    "-I.",
    "-DFLASH_MOE_SHIM",
    ...(sanitize === "thread" ? ["-DFLASH_MOE_SHIM_THREAD_SANITIZER"] : []),
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
  ];
  const job = (source, more = []) => ({
    source,
    compiler: cxx.compiler,
    version: cxx.version,
    args: [...args, ...more, ...(source.endsWith(".cu") ? ["-x", "c++"] : [])],
  });
  const compile = (list) => compileAll(list, folder, { cwd: native, parallel: jobs, log });
  // Fibers and their order are no business of ThreadSanitizer's, but for what the shim tells it.
  const shimJob = (source) => {
    const { args: all, ...rest } = job(source);
    return { ...rest, args: all.filter((argument) => argument !== "-fsanitize=thread") };
  };
  const library = [
    ...sources(["shim"], /\.cc$/).map(shimJob),
    ...sources(["runtime", "ops"], /\.(cc|cu)$/).map((source) => job(source)),
  ];
  if (!drivers) {
    const addonSources = sources(["addon"], /\.cc$/).map((source) => job(source, nodeArguments()));
    const objects = await compile([...library, ...addonSources]);
    const addon = join(folder, "flash_moe_cuda.node");
    const options = ["-shared", "-Wl,--exclude-libs,ALL", `-Wl,${staysLoaded}`];
    const linker = [...options, ...flags, ...objects, "-o", addon, "-lpthread"];
    await link(addon, objects, cxx.compiler, linker);
    return { files: [addon], objects, release: "" };
  }
  const tests = sources(["test"], /_test\.cc$/).map((source) => job(source));
  const objects = await compile([...library, ...tests]);
  const shared = objects.slice(0, library.length);
  const files = [];
  for (const [index, test] of tests.entries()) {
    const object = objects[library.length + index];
    const program = join(folder, basename(test.source, ".cc"));
    await link(program, [object, ...shared], cxx.compiler, [
      ...flags,
      object,
      ...shared,
      "-o",
      program,
      "-lpthread",
    ]);
    files.push(program);
  }
  return { files, objects, release: "" };
}

/**
 * Hopper's tensor-core instructions are only in its own set, sm_90a, which every device of 9.0 has. What came between
 * Ampere's first and Hopper has nothing that the kernels would use: its code is made from the same PTX, in less time.
 */
function machineCodeArgument(number, all) {
  const code = number === 90 ? "90a" : String(number);
  const ptx = number < 90 && all.includes(80) ? "80" : code;
  return `-gencode=arch=compute_${ptx},code=sm_${code}`;
}

/** Relative to native/, in order of name. */
function sources(folders, pattern) {
  return folders.flatMap((folder) =>
    readdirSync(join(native, folder))
      .filter((name) => pattern.test(name))
      .sort()
      .map((name) => `${folder}/${name}`),
  );
}

/** The headers of Node-API, from packages: nothing is downloaded for them. */
function nodeArguments() {
  const require = createRequire(import.meta.url);
  const folder = (name) => dirname(require.resolve(`${name}/package.json`));
  return [
    `-I${folder("node-addon-api")}`,
    `-I${join(folder("node-api-headers"), "include")}`,
    "-DNAPI_VERSION=8",
    "-DNODE_ADDON_API_CPP_EXCEPTIONS",
    "-DNODE_GYP_MODULE_NAME=flash_moe_cuda",
  ];
}
