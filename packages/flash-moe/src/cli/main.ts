// The program itself: importing this file runs it.
import { runCommandLine } from "./command-line.js";

const interruption = new AbortController();
process.on("SIGINT", () => {
  // Who asks twice wants out now.
  if (interruption.signal.aborted) process.exit(130);
  interruption.abort(new Error("interrupted"));
});
// A reader that has seen enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

process.exitCode = await runCommandLine(process.argv.slice(2), {
  stdout: (text) => process.stdout.write(text),
  stderr: (text) => process.stderr.write(text),
  terminalColumns: process.stderr.isTTY ? process.stderr.columns : undefined,
  cwd: process.cwd(),
  signal: interruption.signal,
});
