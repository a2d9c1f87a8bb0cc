import { resolve } from "node:path";
import type { CliIo } from "./io.js";
import { flag, type Option, type OptionTable, type OptionValues, parseOptions } from "./options.js";
import { StatusLine } from "./status-line.js";
import { formatTable, wrapText } from "./table.js";

/** What a running command works with. */
export interface CommandContext {
  readonly io: CliIo;
  readonly signal: AbortSignal;
  /** Whether a machine reads the result: JSON on stdout, nothing but errors on stderr. */
  readonly json: boolean;
  readonly status: StatusLine;
  /** A path of the command line as an absolute one. */
  path(given: string): string;
  /** One line on stderr for people; nothing with --json. */
  say(line: string): void;
  /** The result: text for people or, with --json, a value for machines. */
  report(text: string, value: unknown): void;
}

/** One command of `flash-moe`. */
export interface Command {
  readonly name: string;
  /** One line. */
  readonly summary: string;
  help(): string;
  /** Resolves with the exit code. UsageError before anything is done; else what the work throws. */
  run(args: readonly string[], io: CliIo): Promise<number>;
}

interface CommandDefinition<Table extends OptionTable> {
  readonly name: string;
  readonly summary: string;
  readonly options: Table;
  /** Paragraphs behind the options in the help. */
  readonly notes?: readonly string[];
  /** What options have to fulfil together; throws UsageError. */
  check?(values: OptionValues<Table>): void;
  /** Resolves with the exit code, by default 0. */
  run(values: OptionValues<Table>, context: CommandContext): Promise<number | undefined>;
}

const common = {
  json: flag("the result as JSON on stdout, for machines"),
  help: flag("this text"),
};

const helpWidth = 100;

export function defineCommand<Table extends OptionTable>(definition: CommandDefinition<Table>): Command {
  const { name, summary } = definition;
  return {
    name,
    summary,
    help: () => helpText(definition),
    async run(args, io) {
      const help = (): number => {
        io.stdout(helpText(definition));
        return 0;
      };
      // Before parsing: who asks for help has not got the rest right yet.
      if (args.includes("--help") || args.includes("-h")) return help();
      const values = parseOptions({ ...definition.options, ...common }, args);
      definition.check?.(values as OptionValues<Table>);
      const { json } = values as OptionValues<typeof common>;
      const status = new StatusLine(io, !json);
      try {
        return (await definition.run(values as OptionValues<Table>, createContext(io, json, status))) ?? 0;
      } finally {
        status.clear();
      }
    },
  };
}

function createContext(io: CliIo, json: boolean, status: StatusLine): CommandContext {
  return {
    io,
    signal: io.signal,
    json,
    status,
    path: (given) => resolve(io.cwd, given),
    say(line) {
      if (json) return;
      status.clear();
      io.stderr(`${line}\n`);
    },
    report(text, value) {
      status.clear();
      io.stdout(json ? `${JSON.stringify(value, undefined, 2)}\n` : text);
    },
  };
}

function helpText({ name, summary, options, notes = [] }: CommandDefinition<OptionTable>): string {
  const table: OptionTable = { ...options, ...common };
  const required = Object.entries(table).filter(([, option]) => option.required);
  const usage = ["flash-moe", name, ...required.map(([key, option]) => spell(key, option)), "[options]"];
  const rows: string[][] = [];
  const nameWidth = Math.max(...Object.entries(table).map(([key, option]) => spell(key, option).length));
  for (const [key, option] of Object.entries(table)) {
    const lines = wrapText(option.help + defaultNote(option), helpWidth - nameWidth - 4);
    rows.push(...lines.map((line, index) => [`  ${index === 0 ? spell(key, option) : ""}`, line]));
  }
  const paragraphs = notes.map((note) => wrapText(note, helpWidth).join("\n"));
  return [
    `flash-moe ${name}: ${summary}\n`,
    `usage: ${usage.join(" ")}\n`,
    formatTable(rows),
    ...paragraphs.map((paragraph) => `${paragraph}\n`),
  ].join("\n");
}

function spell(name: string, { placeholder }: Option<unknown>): string {
  return placeholder === undefined ? `--${name}` : `--${name} ${placeholder}`;
}

function defaultNote({ required, fallback }: Option<unknown>): string {
  if (required || (typeof fallback !== "string" && typeof fallback !== "number")) return "";
  return ` (default ${fallback})`;
}
