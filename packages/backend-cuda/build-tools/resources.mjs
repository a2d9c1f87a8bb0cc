// What ptxas said that each kernel takes of a multiprocessor: registers, shared memory, and what it spilled.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { BuildError, run } from "./toolchain.mjs";

const tablePath = fileURLToPath(new URL("../native/kernel-resources.txt", import.meta.url));
const allowedPath = fileURLToPath(new URL("../native/allowed-spills.json", import.meta.url));

/**
 * @typedef {{ kernel: string, architecture: number, registers: number, shared: number, spilled: number, stack: number }} Resources
 */

/**
 * @param {import("./build.mjs").BuildResult} built
 * @param {{ update: boolean, log: (line: string) => void }} options
 */
export async function checkResources(built, { update, log }) {
  const logs = built.objects.map((object) => readFileSync(`${object}.log`, "utf8"));
  const found = await readResources(logs);
  const allowed = JSON.parse(readFileSync(allowedPath, "utf8"));
  const problems = [...spillProblems(found, allowed), ...logs.flatMap(serializationProblems)];
  if (problems.length) throw new BuildError(problems.join("\n"));
  const table = formatTable(found, built.release);
  if (update) {
    writeFileSync(tablePath, table);
    log(`wrote ${tablePath}`);
    return;
  }
  const before = existsSync(tablePath) ? readFileSync(tablePath, "utf8") : "";
  // Another compiler allocates other registers; that is no news about the sources.
  if (before.split("\n")[0] !== table.split("\n")[0]) {
    log(`${tablePath} was made by another compiler or for other architectures, and is not compared`);
  } else if (before !== table) {
    throw new BuildError(
      `native/kernel-resources.txt is out of date:\n${difference(before, table)}\nnode build.mjs --check --update writes it`,
    );
  }
  log(`${found.length} kernels by architecture, none spills that is not allowed to`);
}

/** @returns {Promise<Resources[]>} by name, then architecture */
async function readResources(logs) {
  const found = [];
  for (const log of logs) found.push(...parseLog(log));
  const names = await demangle([...new Set(found.map(({ kernel }) => kernel))]);
  return found
    .map((entry) => ({ ...entry, kernel: names.get(entry.kernel) ?? entry.kernel }))
    .sort((a, b) => (a.kernel < b.kernel ? -1 : a.kernel > b.kernel ? 1 : a.architecture - b.architecture));
}

/** @returns {Resources[]} with mangled names */
export function parseLog(text) {
  const entries = [];
  const starts = [...text.matchAll(/Compiling entry function '([^']+)' for 'sm_(\d+)\w*'/g)];
  for (const [index, start] of starts.entries()) {
    const part = text.slice(start.index, starts[index + 1]?.index);
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    entries.push({
      kernel: start[1],
      architecture: Number(start[2]),
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      stack: number(/(\d+) bytes stack frame/),
      spilled: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
    });
  }
  return entries;
}

async function demangle(names) {
  if (names.length === 0) return new Map();
  const { stdout } = await run("c++filt", names);
  return new Map(
    stdout
      .trim()
      .split("\n")
      .map((name, index) => [names[index], shorten(name)]),
  );
}

/** Without the result, the parameters and the namespace: "linear_tiled<bf16, (bool)1>" */
function shorten(name) {
  let depth = 0;
  let end = name.length;
  for (let i = 0; i < name.length; i++) {
    if (name[i] === "<") depth++;
    else if (name[i] === ">") depth--;
    else if (name[i] === "(" && depth === 0 && !name.startsWith("(anonymous namespace)", i)) {
      end = i;
      break;
    }
  }
  return name
    .slice(0, end)
    .replace(/^void /, "")
    .replaceAll("(anonymous namespace)::", "")
    .replaceAll("flash_moe::", "")
    .replaceAll(/\((?:bool|int|long|unsigned)\)/g, "");
}

/**
 * Where ptxas lets products by wgmma wait for one another, which it says as information only: C7510 and its kin.
 *
 * @returns {string[]}
 */
export function serializationProblems(log) {
  return log.split("\n").filter((line) => /\bC75\d\d\b|wgmma.*serialized/.test(line));
}

/** @param {Readonly<Record<string, string>>} allowed the reason by kernel, with or without its template arguments */
export function spillProblems(found, allowed) {
  const spilling = found.filter(({ spilled }) => spilled > 0);
  const reasonOf = (kernel) => allowed[kernel] ?? allowed[kernel.replace(/<.*$/, "")];
  const problems = spilling
    .filter(({ kernel }) => !reasonOf(kernel))
    .map(
      ({ kernel, architecture, spilled }) =>
        `${kernel} spills ${spilled} bytes on sm_${architecture}: make it smaller, or allow it in native/allowed-spills.json with the reason`,
    );
  const spillers = new Set(spilling.flatMap(({ kernel }) => [kernel, kernel.replace(/<.*$/, "")]));
  for (const kernel of Object.keys(allowed)) {
    if (!spillers.has(kernel))
      problems.push(`native/allowed-spills.json allows ${kernel}, which does not spill`);
  }
  return problems;
}

function formatTable(found, release) {
  const architectures = [...new Set(found.map(({ architecture }) => architecture))].sort((a, b) => a - b);
  const header = `nvcc ${release}; registers for a thread by architecture (bytes spilled), bytes of static shared memory for a block`;
  const columns = ["kernel", ...architectures.map((number) => `sm_${number}`), "shared"];
  const rows = Map.groupBy
    ? [...Map.groupBy(found, ({ kernel }) => kernel)]
    : [
        ...found.reduce(
          (all, entry) => all.set(entry.kernel, [...(all.get(entry.kernel) ?? []), entry]),
          new Map(),
        ),
      ];
  const cells = rows.map(([kernel, entries]) => [
    kernel,
    ...architectures.map((number) => {
      const entry = entries.find(({ architecture }) => architecture === number);
      if (!entry) return "-";
      return entry.spilled ? `${entry.registers} (${entry.spilled})` : String(entry.registers);
    }),
    String(Math.max(...entries.map(({ shared }) => shared))),
  ]);
  const widths = columns.map((column, index) =>
    Math.max(column.length, ...cells.map((row) => row[index].length)),
  );
  const line = (row) =>
    row
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[index])))
      .join("  ")
      .trimEnd();
  return `${[header, "", line(columns), ...cells.map(line)].join("\n")}\n`;
}

function difference(before, after) {
  const old = new Set(before.split("\n"));
  const now = new Set(after.split("\n"));
  return [
    ...[...old].filter((line) => !now.has(line)).map((line) => `- ${line}`),
    ...[...now].filter((line) => !old.has(line)).map((line) => `+ ${line}`),
  ].join("\n");
}
