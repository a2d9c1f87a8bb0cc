import { FlashMoeError } from "@flash-moe/core";
import type { CliIo } from "./io.js";
import { UsageError } from "./usage-error.js";

/** What a shell expects of a command that Ctrl-C stopped: 128 + SIGINT. */
const interruptedExitCode = 130;

/** One line on stderr about what went wrong, and the exit code that belongs to it. */
export function reportError(error: unknown, command: string | undefined, io: CliIo): number {
  const program = command === undefined ? "flash-moe" : `flash-moe ${command}`;
  if (io.signal.aborted && (error === io.signal.reason || isAbortError(error))) {
    io.stderr("flash-moe: interrupted\n");
    return interruptedExitCode;
  }
  if (error instanceof UsageError) {
    io.stderr(`${program}: ${oneLine(error.message)} (see ${program} --help)\n`);
    return 2;
  }
  if (FlashMoeError.is(error)) {
    io.stderr(`flash-moe: ${error.code}: ${oneLine(error.message)}\n`);
    return 1;
  }
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  io.stderr(`flash-moe: unexpected error: ${oneLine(what)}\n`);
  return 1;
}

function isAbortError(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

function oneLine(message: string): string {
  return message.replace(/\s*[\r\n]+\s*/g, " ");
}
