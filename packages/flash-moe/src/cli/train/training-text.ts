import { existsSync } from "node:fs";
import { FlashMoeError } from "@flash-moe/core";
import { openByteSource } from "../../safetensors/byte-source.js";
import { heldOutStart } from "../../training/index.js";

/** A text to learn from. */
export interface TrainingText {
  /** For people. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Where the part begins that is not learnt from, to test on. */
  readonly heldOutStart: number;
}

/** The longest text, in bytes: it is held in memory. */
const maxTextBytes = 2 ** 31 - 1;

/**
 * Any regular file, its last tenth held out. IO_FAILED if it cannot be read, INVALID_ARGUMENT for fewer
 * than 2 bytes or more than 2^31 - 1.
 */
export async function readTrainingText(path: string): Promise<TrainingText> {
  const source = await openByteSource(path);
  try {
    if (source.size < 2 || source.size > maxTextBytes) {
      throw new FlashMoeError(
        "INVALID_ARGUMENT",
        `--text: ${path} has ${source.size} bytes; takes 2 to ${maxTextBytes}`,
      );
    }
    const bytes = await source.read(0, source.size);
    return { name: path, bytes, heldOutStart: heldOutStart(bytes) };
  } finally {
    await source.close();
  }
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
