// Builds the addon and packs everything that a bare Linux machine with an NVIDIA driver needs to test and measure the
// CUDA backend, Node included: pnpm gpu:bundle [--out FOLDER] [--no-tar] [--shim] [--xz]
//
// Leaves FOLDER (default build/gpu-bundle) and FOLDER.tar, each under 60 MB. There: ./run.sh --help. --shim packs the
// build for the CPU instead of the one for GPUs, to test the bundle itself. --xz packs Node a third smaller, for a machine
// that has xz or Python.
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gzipSync } from "node:zlib";

import { readCommandLine, refuse } from "./lib/command-line.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values: options } = readCommandLine(import.meta.url, {
  out: { type: "string", default: join(root, "build/gpu-bundle") },
  "no-tar": { type: "boolean", default: false },
  shim: { type: "boolean", default: false },
  xz: { type: "boolean", default: false },
});
const out = options.out;
const limit = 60e6;

if (existsSync(out) && readdirSync(out).length > 0 && !existsSync(join(out, "run.sh"))) {
  refuse(
    `--out ${out} has other things in it, which would be removed; takes a new folder, or that of a bundle`,
  );
}
rmSync(out, { recursive: true, force: true });
const app = join(out, "app");
mkdirSync(app, { recursive: true });

packNode();
packPackages();
packAddon();
packWebGpu();
// Where they are in the repository: they import each other.
for (const part of [
  ...["gpu-bundle", "lib", "goldens"].map((name) => `tools/${name}`),
  ...["cuda", "cuda.mjs", "cuda-tune.mjs", "cuda-peers.mjs", "cuda_peers.py", "statistics.mjs"].map(
    (name) => `benchmarks/${name}`,
  ),
]) {
  packFolder(part, join(app, part), (path) => !path.includes("__pycache__") && !path.endsWith("run.sh"));
}
writeFileSync(join(app, "package.json"), '{ "private": true, "type": "module" }\n');
writeFileSync(join(out, "origin.json"), `${JSON.stringify(origin(), undefined, 2)}\n`);
cpSync(join(root, "tools/gpu-bundle/run.sh"), join(out, "run.sh"));

let size = sizeOf(out);
if (options.xz || size > limit) {
  rmSync(join(out, "node.gz"));
  const packed = execFileSync("xz", ["-6", "--stdout", process.execPath], { maxBuffer: 2 ** 30 });
  writeFileSync(join(out, "node.xz"), packed);
  size = sizeOf(out);
}
console.log(`${out}: ${(size / 1e6).toFixed(1)} MB`);
if (size > limit) fail(`the bundle has ${size} bytes; at most ${limit} are wanted`);
if (!options["no-tar"]) {
  execFileSync("tar", ["-cf", `${out}.tar`, "-C", dirname(out), basename(out)]);
  console.log(`${out}.tar`);
}

/** This very Node, compressed: gzip is on every machine. With it, the C++ library that it was linked to. */
function packNode() {
  compress(process.execPath, join(out, "node.gz"));
  const libraries = spawnSync("ldd", [process.execPath], { encoding: "utf8" }).stdout ?? "";
  for (const [, path] of libraries.matchAll(/=> (\S*\/lib(?:stdc\+\+|gcc_s)\.so\S*)/g)) {
    compress(path, join(out, "lib", `${basename(path)}.gz`));
  }
}

/** The packages as they are published, without what only a debugger or a compiler reads. */
function packPackages() {
  const packages = join(root, "packages");
  for (const name of readdirSync(packages)) {
    const folder = join(packages, name);
    const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const target = join(app, "node_modules", manifest.name);
    mkdirSync(target, { recursive: true });
    cpSync(join(folder, "package.json"), join(target, "package.json"));
    for (const part of ["dist", "bin"]) {
      if (!existsSync(join(folder, part))) continue;
      packFolder(
        join("packages", name, part),
        join(target, part),
        (path) => !/\.(map|d\.ts|tsbuildinfo)$/.test(path),
      );
    }
  }
}

function packAddon() {
  const folder = options.shim ? "shim" : "cuda";
  // Only what changed is compiled: so it is what origin.json says it is.
  const build = spawnSync(process.execPath, ["build.mjs", ...(options.shim ? ["--shim"] : [])], {
    cwd: join(root, "packages/backend-cuda"),
    stdio: "inherit",
  });
  if (build.status !== 0) fail("the addon is not built; that of GPUs needs nvcc");
  const binary = join(root, `packages/backend-cuda/build/${folder}/flash_moe_cuda.node`);
  const target = options.shim ? out : join(app, "node_modules/@flash-moe/backend-cuda-linux-x64");
  compress(binary, join(target, "flash_moe_cuda.node.gz"));
}

/** Dawn, for this platform alone. */
function packWebGpu() {
  const require = createRequire(join(root, "packages/backend-webgpu/package.json"));
  let folder;
  try {
    folder = dirname(require.resolve("webgpu/package.json"));
  } catch {
    folder = dirname(require.resolve("webgpu"));
  }
  const target = join(app, "node_modules/webgpu");
  const binary = `dist/${process.platform}-${process.arch}/dawn.node`;
  mkdirSync(target, { recursive: true });
  for (const file of ["package.json", "index.js"]) cpSync(join(folder, file), join(target, file));
  compress(join(folder, binary), join(target, `${binary}.gz`));
}

/** @param {string} from @param {string} to @param {(path: string) => boolean} wanted */
function packFolder(from, to, wanted) {
  cpSync(join(root, from), to, {
    recursive: true,
    filter: (path) => statSync(path).isDirectory() || wanted(path),
  });
}

/** @param {string} from @param {string} to */
function compress(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(to, gzipSync(readFileSync(from), { level: constants.Z_BEST_COMPRESSION }));
}

function origin() {
  const git = (/** @type {string[]} */ ...args) =>
    spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout?.trim();
  return {
    commit: git("rev-parse", "HEAD") ?? "unknown",
    changed: git("status", "--porcelain", "--", "packages", "benchmarks", "tools") !== "",
    node: process.version,
    addon: options.shim ? "CPU shim" : "CUDA",
  };
}

/** @param {string} path @returns {number} */
function sizeOf(path) {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(message);
  process.exit(1);
}
