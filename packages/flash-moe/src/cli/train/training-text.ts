import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { FlashMoeError } from "@flash-moe/core";
import { heldOutStart } from "../../training/index.js";

/** A text to learn from. */
export interface TrainingText {
  /** For people. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Where the part begins that is not learnt from, to test on. */
  readonly heldOutStart: number;
}

/** Any file, its last tenth held out. IO_FAILED if it cannot be read, INVALID_ARGUMENT if nothing is in it. */
export async function readTrainingText(path: string): Promise<TrainingText> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw FlashMoeError.from(error, "IO_FAILED", `cannot read ${path}`);
  }
  if (bytes.length < 2) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `--text: ${path} has ${bytes.length} bytes; takes at least 2`,
    );
  }
  return { name: path, bytes, heldOutStart: heldOutStart(bytes) };
}

// A clone has them, five folders up, whether this is its source or what was built from it; a package has not.
const clone = new URL("../../../../../", import.meta.url);
const book = new URL("tools/moby-dick.mjs", clone);
const thisPackage = new URL("packages/flash-moe/package.json", clone);

/** The book of a clone of this project. UNAVAILABLE anywhere else. */
export async function readDemoText(): Promise<TrainingText> {
  if (!existsSync(thisPackage) || !existsSync(book)) {
    throw new FlashMoeError(
      "UNAVAILABLE",
      "--demo learns a book that only a clone of the repository has; --text FILE takes any text",
    );
  }
  const { mobyDick } = (await import(book.href)) as {
    mobyDick: () => { text: Uint8Array; heldOutStart: number };
  };
  const { text, heldOutStart: start } = mobyDick();
  return { name: "Moby Dick", bytes: text, heldOutStart: start };
}
