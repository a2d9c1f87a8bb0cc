// A kernel that reads where it must not leaves a CUDA context that only the end of its process clears.
import { spawnSync } from "node:child_process";

/**
 * Runs this program again, from what comes after `name` on: told by --after, which it has to understand. Ends this
 * process, as failed.
 *
 * @param {string} name @returns {never}
 */
export function goOnAfter(name) {
  const [script, ...given] = process.argv.slice(1);
  const at = given.indexOf("--after");
  if (at >= 0) given.splice(at, 2);
  spawnSync(process.execPath, [script, ...given, "--after", name], { stdio: "inherit" });
  process.exit(1);
}

/** @param {unknown} error */
export function isLoss(error) {
  return error instanceof Error && "code" in error && error.code === "DEVICE_LOST";
}
