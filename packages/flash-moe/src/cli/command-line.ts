import type { Command } from "./command.js";
import { bench } from "./commands/bench.js";
import { generate } from "./commands/generate.js";
import { info } from "./commands/info.js";
import { init } from "./commands/init.js";
import { run } from "./commands/run.js";
import { train } from "./commands/train.js";
import { verify } from "./commands/verify.js";
import type { CliIo } from "./io.js";
import { reportError } from "./report-error.js";
import { formatTable } from "./table.js";
import { suggestion, UsageError } from "./usage-error.js";
import { packageVersion } from "./version.js";

const commands: readonly Command[] = [info, init, run, verify, bench, train, generate];
const names = commands.map((command) => command.name);

/**
 * `flash-moe <args>`. Resolves with the exit code: 0 done, 1 for an error with a code, 2 for a command line
 * that cannot be parsed, 130 after an abort. Never rejects.
 */
export async function runCommandLine(args: readonly string[], io: CliIo): Promise<number> {
  const [name, ...rest] = args;
  const command = commands.find((candidate) => candidate.name === name);
  try {
    if (command !== undefined) return await command.run(rest, io);
    return withoutCommand(args, io);
  } catch (error) {
    return reportError(error, command?.name, io);
  }
}

function withoutCommand([name, about]: readonly string[], io: CliIo): number {
  if (name === "--version" || name === "-v") {
    io.stdout(`${packageVersion()}\n`);
    return 0;
  }
  if (name === "--help" || name === "-h" || name === "help") {
    const command = commands.find((candidate) => candidate.name === about);
    if (command === undefined && about !== undefined) throw unknownCommand(about, names);
    io.stdout(command?.help() ?? generalHelp());
    return 0;
  }
  if (name === undefined) throw new UsageError(`no command is given; takes one of ${names.join(", ")}`);
  throw unknownCommand(name, [...names, "--help", "--version"]);
}

function unknownCommand(name: string, known: readonly string[]): UsageError {
  return new UsageError(
    `${JSON.stringify(name)} is no command; takes one of ${names.join(", ")}${suggestion(name, known)}`,
  );
}

function generalHelp(): string {
  return [
    "flash-moe: mixture-of-experts layers with up to millions of one-neuron experts\n",
    "usage: flash-moe <command> [options]\n",
    formatTable(commands.map(({ name, summary }) => [`  ${name}`, summary])),
    "flash-moe <command> --help tells the options of a command, flash-moe --version the version.",
    "Exit codes: 0 done, 1 an error with a code, 2 a command line that cannot be parsed, 130 interrupted.\n",
  ].join("\n");
}
