// Compiles sources to objects, those whose command or files have changed, several at once.
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join } from "node:path";
import { BuildError, run } from "./toolchain.mjs";

/**
 * @typedef {{ source: string, compiler: string, args: readonly string[], version: string }} Job
 * The arguments without the source, the output and the list of dependencies, which are added.
 */

/**
 * @param {readonly Job[]} jobs
 * @param {string} folder for the objects
 * @param {{ cwd: string, parallel?: number, log: (line: string) => void }} options
 * @returns {Promise<string[]>} the objects, in the order of the jobs; beside each, its compiler's messages as .log
 */
export async function compileAll(jobs, folder, { cwd, parallel = availableParallelism(), log }) {
  mkdirSync(folder, { recursive: true });
  const objects = jobs.map(({ source }) => join(folder, `${source.replaceAll("/", "-")}.o`));
  const stale = jobs
    .map((job, index) => ({ job, object: objects[index] }))
    .filter(({ job, object }) => !isUpToDate(job, object, cwd))
    // The long ones first, so that none runs alone at the end: their last time, or else their size.
    .sort((a, b) => cost(b, cwd) - cost(a, cwd));
  let next = 0;
  const failures = [];
  const worker = async () => {
    while (next < stale.length && failures.length === 0) {
      const { job, object } = stale[next++];
      const started = performance.now();
      const failure = await compile(job, object, cwd);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      if (failure !== undefined) failures.push(`${job.source} does not compile:\n${failure}`);
      else log(`${seconds.padStart(6)} s  ${job.source}`);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, parallel) }, worker));
  if (failures.length) throw new BuildError(failures.join("\n"));
  return objects;
}

function commandOf({ compiler, args, version, source }) {
  return JSON.stringify([compiler, version, ...args, source]);
}

function isUpToDate(job, object, cwd) {
  if (!existsSync(object) || !existsSync(`${object}.command`)) return false;
  if (JSON.parse(readFileSync(`${object}.command`, "utf8")).command !== commandOf(job)) return false;
  const built = statSync(object).mtimeMs;
  return dependencies(`${object}.d`).every((file) => {
    const path = file.startsWith("/") ? file : join(cwd, file);
    return existsSync(path) && statSync(path).mtimeMs < built;
  });
}

/** The files of a rule as make writes it: "target: file file \ file". */
function dependencies(path) {
  const rule = readFileSync(path, "utf8").replaceAll("\\\n", " ");
  return rule
    .slice(rule.indexOf(": ") + 2)
    .split(/\s+/)
    .filter(Boolean);
}

function cost({ job, object }, cwd) {
  try {
    return JSON.parse(readFileSync(`${object}.command`, "utf8")).milliseconds;
  } catch {
    return statSync(join(cwd, job.source)).size;
  }
}

/** @returns what the compiler complained about, or undefined where it was content */
async function compile(job, object, cwd) {
  rmSync(object, { force: true });
  const started = performance.now();
  const args = [...job.args, "-MMD", "-MF", `${object}.d`, "-c", job.source, "-o", object];
  const { status, stdout, stderr } = await run(job.compiler, args, { cwd });
  if (status !== 0) return stdout + stderr;
  const milliseconds = Math.round(performance.now() - started);
  writeFileSync(`${object}.log`, stdout + stderr);
  writeFileSync(`${object}.command`, JSON.stringify({ command: commandOf(job), milliseconds }));
  const warnings = stderr.split("\n").filter((line) => /\bwarning\b/i.test(line));
  return warnings.length ? warnings.join("\n") : undefined;
}

/**
 * Runs a linker, if its inputs are newer than its output or its command has changed.
 *
 * @param {string} output
 * @param {readonly string[]} inputs
 * @param {string} compiler
 * @param {readonly string[]} args
 */
export async function link(output, inputs, compiler, args) {
  const command = JSON.stringify([compiler, ...args]);
  const note = join(dirname(output), `${basename(output)}.command`);
  if (
    existsSync(output) &&
    existsSync(note) &&
    readFileSync(note, "utf8") === command &&
    inputs.every((input) => statSync(input).mtimeMs < statSync(output).mtimeMs)
  ) {
    return;
  }
  // A process that has the old one loaded keeps it.
  rmSync(output, { force: true });
  const { status, stdout, stderr } = await run(compiler, args);
  if (status !== 0) throw new BuildError(`${basename(output)} cannot be linked:\n${stdout}${stderr}`);
  writeFileSync(note, command);
}
