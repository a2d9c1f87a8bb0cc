import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** What a benchmark has stored. @param {string} name a file of results/ */
export function readResult(name) {
  return JSON.parse(textOf(name));
}

/** Stands in a plot, so that a test can tell one whose results are no longer the ones of the file. @param {string} name */
export function origin(name) {
  const digest = createHash("sha256").update(textOf(name)).digest("hex").slice(0, 16);
  return `<!-- benchmarks/results/${name} ${digest} -->`;
}

/** @param {string} name */
function textOf(name) {
  return readFileSync(new URL(`../results/${name}`, import.meta.url), "utf8");
}
