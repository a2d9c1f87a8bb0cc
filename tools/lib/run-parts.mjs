// A program whose parts run in a process of their own: one that crashes, hangs or loses the device costs that part alone.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** A program in which more than this many parts end the process has told enough. */
const mostProcesses = 20;

/** How long a process that was killed may take to end: one that waits in the driver may not end at all. */
const endSeconds = 10;

/** The last line of a process that was ended may be cut. @param {string} text @returns {any} */
function parsed(text) {
  try {
    return text.startsWith("{") ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Runs `command` with `args` and `--from N`, which does its parts from number N on and tells of them on its standard
 * output (serveParts, or the like): lines of JSON, `{ begins: name, index }` before a part, `{ result, index }` after
 * it, and `{ done: true }` after the last. A part may tell a first result, which a later one replaces. Other lines are
 * passed over. When the process ends before that, or says nothing
 * for longer than it may, a new one goes on after the part that it was at. A SIGTERM ends it, and lets the caller tell what
 * there is.
 *
 * @param {object} options
 * @param {string} options.command
 * @param {readonly string[]} options.args
 * @param {number} options.silence seconds without a line, the start of the process included
 * @param {(name: string, result: any) => void} options.onResult after each part; `{ error }` for one that ended the
 *   process
 * @returns {Promise<{ complete: boolean, processes: number, problems: string[] }>} complete: every part was reached;
 *   problems: what befell the processes between parts
 */
export async function runParts({ command, args, silence, onResult }) {
  /** @type {string[]} */
  const problems = [];
  let next = 0;
  let processes = 0;
  let idle = 0;
  let complete = false;
  let stopped = false;
  /** @type {(why: string) => void} */
  let end = () => {};
  const stop = () => {
    stopped = true;
    end("the run was ended");
  };
  for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, stop);
  const leave = () => end("");
  process.once("exit", leave);
  while (!complete && !stopped && processes < mostProcesses) {
    processes++;
    const from = next;
    /** @type {{ begins: string, index: number } | undefined} */
    let begun;
    let name = "";
    let isLost = false;
    const how = await runOnce((line) => {
      if (line.begins !== undefined) {
        begun = line;
        name = line.begins;
      } else if (line.result !== undefined) {
        const { lost, ...result } = line.result;
        isLost = lost === true;
        onResult(name, result);
        begun = undefined;
        next = line.index + 1;
      } else if (line.done) {
        complete = true;
      }
    });
    if (stopped) break;
    if (begun !== undefined) {
      onResult(begun.begins, { error: `its process ended: ${how}` });
      next = begun.index + 1;
    } else if (complete && how !== "exit code 0") {
      problems.push(`after the last part: ${how}`);
    } else if (!complete && !isLost) {
      problems.push(`before part ${next}: ${how}`);
    }
    // The first that does nothing may suffer from the one before it.
    idle = next > from ? 0 : idle + 1;
    if (idle > 1) break;
  }
  if (!complete && processes === mostProcesses) problems.push(`${processes} processes ended`);
  process.off("SIGTERM", stop).off("SIGINT", stop).off("exit", leave);
  return { complete, processes, problems };

  /** @param {(line: any) => void} onLine @returns {Promise<string>} how it ended */
  function runOnce(onLine) {
    return new Promise((resolve) => {
      // A group of its own, so that what it started ends with it.
      const child = spawn(command, [...args, "--from", String(next)], {
        stdio: ["ignore", "pipe", "inherit"],
        detached: true,
      });
      /** @type {string | undefined} */
      let why;
      /** @type {NodeJS.Timeout | undefined} */
      let timer;
      const kill = () => {
        try {
          if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
        } catch {
          // None of the group is left.
        }
      };
      const settle = (/** @type {string} */ how) => {
        clearTimeout(timer);
        end = () => {};
        child.stdout.destroy();
        child.unref();
        resolve(how);
      };
      end = (reason) => {
        why ??= reason;
        kill();
        clearTimeout(timer);
        timer = setTimeout(() => settle(`${why}, and it does not end`), 1000 * endSeconds);
      };
      const heard = () => {
        if (why !== undefined) return;
        clearTimeout(timer);
        timer = setTimeout(() => end(`nothing was heard of it for ${silence} s`), 1000 * silence);
      };
      heard();
      createInterface({ input: child.stdout }).on("line", (text) => {
        heard();
        const line = parsed(text);
        if (line !== undefined) onLine(line);
      });
      child.on("error", (error) => settle(error.message));
      child.on("exit", (code, signal) => {
        const how = why ?? signal ?? `exit code ${code}`;
        kill();
        // Who left the group may hold the output: what it says is of no interest.
        const late = setTimeout(() => settle(how), 1000);
        child.on("close", () => {
          clearTimeout(late);
          settle(how);
        });
      });
    });
  }
}
