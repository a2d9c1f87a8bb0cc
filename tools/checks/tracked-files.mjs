// No tracked file may name a package registry's host or a path of somebody's machine: neither means anything to
// the next person, and a lock file that names a registry installs from nowhere else.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** @type {[what: string, pattern: RegExp][]} */
const forbidden = [
  ["a registry's host name", /\bregistry\.[a-z0-9-]+\.[a-z]{2,}|\bregistry\.[a-z]+\/|npm\.pkg\.github\.com/i],
  ["a home directory", /(?<![\w.~*)}\]-])\/(?:home|Users)\/[\w.-]+\/|\b[A-Z]:\\Users\\/],
  ...[root.slice(0, -1), homedir()].filter((path) => path.length > 3).map(thisMachine),
];

/** @param {string} path @returns {[string, RegExp]} */
function thisMachine(path) {
  return ["a path of this machine", new RegExp(`(?<![\\w.~*)}\\]-])${escaped(path)}(?![\\w-])`)];
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

let problems = 0;
const files = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" })
  .split("\0")
  .filter(Boolean);
for (const file of files) {
  if (!existsSync(join(root, file))) continue; // deleted, not yet committed
  const bytes = readFileSync(join(root, file));
  if (bytes.subarray(0, 8_000).includes(0)) continue; // not text
  for (const [number, line] of bytes.toString("utf8").split("\n").entries()) {
    for (const [what, pattern] of forbidden) {
      const found = pattern.exec(line);
      if (!found) continue;
      problems++;
      console.error(`${file}:${number + 1}: ${what}: ${found[0]}`);
    }
  }
}
console.log(problems ? `${problems} problems` : `${files.length} files read`);
process.exitCode = problems ? 1 : 0;
