import { fileURLToPath } from "node:url";
import { setUpOrExit } from "./setup.mjs";

/**
 * Sets up what is missing, then runs `flash-moe <args>` in this very process, so that signals, the terminal and
 * the exit code are its own. npm runs scripts at the root of the clone; relative paths are those of the caller.
 *
 * @param {string[]} args
 */
export async function runFlashMoe(args) {
  await setUpOrExit();
  const main = new URL("../../packages/flash-moe/dist/cli/main.js", import.meta.url);
  process.chdir(process.env.INIT_CWD ?? process.cwd());
  process.argv = [process.execPath, fileURLToPath(main), ...args];
  await import(main.href);
}
