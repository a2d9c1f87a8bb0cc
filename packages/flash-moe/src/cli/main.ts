// The program itself: importing this file runs it.
import { runCommandLine } from "./command-line.js";

/** What a shell expects of a program that one of these ended: 128 and its number. */
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

const interruption = new AbortController();
let interruptedCode: number | undefined;
for (const name of Object.keys(exitCodes) as (keyof typeof exitCodes)[]) {
  process.on(name, () => {
    // Who asks twice wants out now.
    if (interruptedCode !== undefined) process.exit(interruptedCode);
    interruptedCode = exitCodes[name];
    interruption.abort(new Error("interrupted"));
  });
}
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // A reader that has seen enough (`| head`) is no error.
  if (error.code === "EPIPE") process.exit();
  fail(`cannot write the result to stdout: ${error.message}`);
});
process.stderr.on("error", (error: NodeJS.ErrnoException) => {
  // There is nowhere left to tell.
  process.exit(error.code === "EPIPE" ? undefined : 1);
});

let done = false;
process.on("beforeExit", () => {
  // Nothing is under way any more; Node ends with 13, and without a word.
  if (done) return;
  process.stderr.write(
    "flash-moe: the backend left a promise unsettled, with nothing under way to settle it\n",
  );
});

const code = await runCommandLine(process.argv.slice(2), {
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  // A terminal that does not tell its width has 0.
  terminalColumns: process.stderr.isTTY ? process.stderr.columns || 80 : undefined,
  cwd: currentFolder(),
  signal: interruption.signal,
});
done = true;
process.exitCode = code === exitCodes.SIGINT ? (interruptedCode ?? code) : code;

/** Throws, in Node, once the folder has been removed. */
function currentFolder(): string {
  try {
    return process.cwd();
  } catch {
    return fail("the current folder is not there any more");
  }
}

function fail(what: string): never {
  process.stderr.write(`flash-moe: IO_FAILED: ${what}\n`);
  process.exit(1);
}
