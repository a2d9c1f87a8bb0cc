// What is given to a script: what it cannot take ends it with 2 and one line that says so.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/**
 * The options and positional arguments of the script with the URL `script`. For --help it prints the comment that the
 * script begins with and ends.
 * @template {NonNullable<import("node:util").ParseArgsConfig["options"]>} Options
 * @param {string} script @param {Options} options as in `parseArgs`
 * @param {readonly string[]} [names] of the positional arguments that it takes; in brackets if it may go without
 * @param {string[]} [args] instead of the process's own
 */
export function readCommandLine(script, options, names = [], args = undefined) {
  try {
    const read = parseArgs({
      args,
      allowPositionals: names.length > 0,
      options: { ...options, help: { type: "boolean", short: "h" } },
    });
    if (read.values.help) {
      console.log(leadingComment(readFileSync(fileURLToPath(script), "utf8")));
      process.exit(0);
    }
    const count = read.positionals.length;
    if (count > names.length) refuse(`${read.positionals[names.length]} is one argument too many`);
    if (count < names.filter((name) => !name.startsWith("[")).length) refuse(`${names[count]} is missing`);
    return read;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return refuse(error.message);
  }
}

/** Ends the process: it cannot take what it is given. @param {string} message @returns {never} */
export function refuse(message) {
  const name = basename(process.argv[1] ?? "");
  console.error(`${name}: ${message.split("\n")[0]} (${name} --help tells what it takes)`);
  process.exit(2);
}

/**
 * The number that an option or argument stands for: whole and from 1 on unless said otherwise.
 * @param {string} name @param {string} text @param {{ from?: number, fraction?: boolean }} [accepted]
 */
export function takeNumber(name, text, { from = 1, fraction = false } = {}) {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (fraction ? value > 0 && value < Number.POSITIVE_INFINITY : Number.isSafeInteger(value) && value >= from)
    return value;
  return refuse(`${name} is ${text}; takes ${fraction ? "a number above 0" : `a whole number from ${from}`}`);
}

/** The value of `all` with that name. @template T @param {string} name @param {string | undefined} key @param {Record<string, T>} all */
export function takeOne(name, key, all) {
  if (key !== undefined && Object.hasOwn(all, key)) return all[key];
  return refuse(`${name} is ${key ?? "missing"}; takes ${Object.keys(all).join(" or ")}`);
}

/**
 * The elements of `all` whose numbers, from 0 on, `text` lists as in 0,2; all of them without it.
 * @template T @param {string} name @param {string | undefined} text @param {readonly T[]} all
 */
export function takeSome(name, text, all) {
  if (text === undefined) return all;
  return text.split(",").map((number) => {
    if (/^\d+$/.test(number) && Number(number) < all.length) return all[Number(number)];
    return refuse(`${name} is ${text}; takes numbers from 0 to ${all.length - 1}, as in 0,2`);
  });
}

/** Without the slashes. @param {string} source */
function leadingComment(source) {
  const lines = source.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("//"));
  return lines
    .slice(0, end)
    .map((line) => line.replace(/^\/\/ ?/, ""))
    .join("\n");
}
