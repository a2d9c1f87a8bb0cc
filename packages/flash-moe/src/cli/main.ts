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
for (const stream of [process.stdout, process.stderr]) {
  // A reader that has seen enough (`| head`) is no error.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit();
  });
}

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
  cwd: process.cwd(),
  signal: interruption.signal,
});
done = true;
process.exitCode = code === exitCodes.SIGINT ? (interruptedCode ?? code) : code;
