import { renameSync, writeFileSync } from "node:fs";

/** Whoever reads meanwhile finds what was there before, or all of it. @param {string} path @param {unknown} value */
export function writeJson(path, value) {
  writeFileSync(`${path}.part`, `${JSON.stringify(value, undefined, 2)}\n`);
  renameSync(`${path}.part`, path);
}
