// The side of runParts that does the work, in a process that may end in any part.

/**
 * Does the parts from number `first` on, then ends the process. What `run` throws is the part's result, as `{ error }`.
 *
 * After a result that says `lost: true` the process ends at once, and not by way of the driver, which may wait for the
 * device: a context that is lost, or that hangs, is cleared by nothing else.
 *
 * @param {readonly { name: string, run: () => object | Promise<object> }[]} parts
 * @param {number} first
 * @param {() => Promise<void>} [close] after the last part
 * @returns {Promise<never>}
 */
export async function serveParts(parts, first, close) {
  const say = (/** @type {object} */ line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  for (const [index, { name, run }] of parts.entries()) {
    if (index < first) continue;
    say({ begins: name, index });
    /** @type {{ lost?: boolean }} */
    let result;
    try {
      result = await run();
    } catch (error) {
      result = { ...told(error), lost: isLoss(error) };
    }
    say({ result, index });
    if (result.lost) process.kill(process.pid, "SIGKILL");
  }
  await close?.();
  say({ done: true });
  process.exit();
}

/** @param {unknown} error */
export function told(error) {
  return { error: error instanceof Error ? error.message : String(error) };
}

/** Whether the device is of no more use to this process. @param {unknown} error */
export function isLoss(error) {
  if (!(error instanceof Error)) return false;
  const code = "code" in error ? error.code : undefined;
  return code === "DEVICE_LOST" || code === "UNAVAILABLE" || error.name === "TimeLimitExceeded";
}
