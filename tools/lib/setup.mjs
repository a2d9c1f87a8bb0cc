// Makes a fresh clone ready on a machine that has Node and npm alone: installs the dependencies, builds the
// packages. Does nothing, silently, when both are up to date. All output goes to stderr.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { acquireLock } from "./lock.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const stateDirectory = join(root, ".setup");
const installedStamp = join(stateDirectory, "installed");
const builtStamp = join(stateDirectory, "built");
const installInputs = ["pnpm-lock.yaml", "pnpm-workspace.yaml"].map((name) => join(root, name));
const typescript = join(root, "node_modules/typescript/bin/tsc");

/**
 * Installs and builds what is missing; concurrent callers wait for each other. When it fails, it says why in one
 * line and ends the process.
 *
 * @param {{ build?: boolean }} [options] - build: false only installs
 */
export async function setUpOrExit({ build = true } = {}) {
  try {
    await setUp(build);
  } catch (error) {
    say(error instanceof SetupError ? error.message : String(error));
    process.exit(1);
  }
}

/** @param {boolean} andBuild */
async function setUp(andBuild) {
  const isReady = () => isInstalled() && (!andBuild || isBuilt());
  if (isReady()) return;
  mkdirSync(stateDirectory, { recursive: true });
  const release = await acquireLock(join(stateDirectory, "lock"), (pid) =>
    say(`waiting for another set-up (process ${pid})`),
  );
  process.once("exit", release);
  try {
    if (!isInstalled()) await install();
    if (!isReady()) await build();
  } finally {
    process.off("exit", release);
    release();
  }
}

class SetupError extends Error {}

function isInstalled() {
  const modules = join(root, "node_modules/.modules.yaml"); // pnpm writes this last
  if (!existsSync(modules) || !existsSync(typescript)) return false;
  if (readStamp(installedStamp) === installInputsHash()) return true;
  return installInputs.every((path) => modified(path) <= modified(modules)); // installed by pnpm itself
}

async function install() {
  say("installing dependencies");
  const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const hash = installInputsHash();
  const { code, output } = await run(
    "npx",
    [
      "--yes",
      "--prefer-offline",
      packageManager,
      "install",
      "--frozen-lockfile",
      "--prefer-offline",
      "--prod=false",
    ],
    { shell: process.platform === "win32", env: installEnvironment() },
  );
  if (code !== 0 && /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT|META_FETCH_FAIL/.test(output)) {
    throw new SetupError("the package registry cannot be reached: the first set-up needs the network");
  }
  if (code !== 0) throw new SetupError(`installing the dependencies failed (exit code ${code}), see above`);
  writeFileSync(installedStamp, hash);
}

/**
 * What pnpm is run with: the caller's environment, without what would make it do something else.
 *
 * @param {NodeJS.ProcessEnv} caller
 * @param {string} home - the home directory
 * @returns {NodeJS.ProcessEnv}
 */
export function installEnvironment(caller = process.env, home = homedir()) {
  // CI=true: pnpm must never ask a question here, as it does before it replaces a node_modules of another make.
  const environment = { ...caller, CI: "true" };
  // npm hands its options down to what it runs. Of `npm run -s` errors would go unseen; `npx -p node@24 npm start`
  // and `npm start --workspace` would ask for another package than pnpm.
  for (const option of ["loglevel", "package", "call", "workspace", "workspaces"])
    delete environment[`npm_config_${option}`];
  if (!isWritable(home)) {
    // As in a container whose user has none: the caches go into the clone, settings are still the user's.
    environment.npm_config_userconfig ??= join(home, ".npmrc");
    environment.HOME = join(stateDirectory, "home");
    for (const name of ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"])
      delete environment[name];
  }
  return environment;
}

/** @param {string} directory */
function isWritable(directory) {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function isBuilt() {
  if (!existsSync(builtStamp)) return false;
  const packages = join(root, "packages");
  const builtAt = modified(builtStamp);
  if (modified(join(root, "tsconfig.base.json")) > builtAt) return false;
  return readdirSync(packages).every((name) => {
    const directory = join(packages, name);
    if (!existsSync(join(directory, "tsconfig.json"))) return true; // nothing to build
    return (
      existsSync(join(directory, "dist/index.js")) &&
      modified(join(directory, "tsconfig.json")) <= builtAt &&
      newest(join(directory, "src")) <= builtAt
    );
  });
}

async function build() {
  say("building");
  const startedAt = new Date();
  const { code } = await run(process.execPath, [typescript, "--build", root]);
  if (code !== 0) throw new SetupError(`the build failed (exit code ${code}), see above`);
  writeFileSync(builtStamp, "");
  utimesSync(builtStamp, startedAt, startedAt); // what changed during the build is built the next time
}

/** Runs a command with its output on stderr; resolves with its exit code and what it printed. */
function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], ...options });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
        process.stderr.write(chunk);
      });
    }
    const forward = (signal) => child.kill(signal);
    process.on("SIGINT", forward);
    process.on("SIGTERM", forward);
    const settle = (done) => {
      process.off("SIGINT", forward);
      process.off("SIGTERM", forward);
      done();
    };
    child.once("error", (error) =>
      settle(() => reject(new SetupError(`${command} did not start: ${error.message}`))),
    );
    child.once("close", (code, signal) =>
      settle(() => (signal ? reject(new SetupError(`stopped by ${signal}`)) : resolve({ code, output }))),
    );
  });
}

function newest(directory) {
  let latest = modified(directory); // a directory changes when a file in it comes or goes
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    latest = Math.max(latest, entry.isDirectory() ? newest(path) : modified(path));
  }
  return latest;
}

function modified(path) {
  return statSync(path).mtimeMs;
}

function installInputsHash() {
  const hash = createHash("sha256");
  for (const path of installInputs) hash.update(readFileSync(path));
  return hash.digest("hex");
}

function readStamp(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

function say(message) {
  process.stderr.write(`flash-moe: ${message}\n`);
}
