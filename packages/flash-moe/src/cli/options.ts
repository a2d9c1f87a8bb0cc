import { parseArgs } from "node:util";
import { suggestion, UsageError } from "./usage-error.js";

/** One `--name` of a command. */
export interface Option<Value> {
  /** What stands for the value in the help; absent for a flag, which takes none. */
  readonly placeholder?: string;
  readonly help: string;
  /** What the value may be, for messages. */
  readonly takes: string;
  /** Whether it has to be given. */
  readonly required: boolean;
  /** The value where it is not given and need not be. */
  readonly fallback: Value;
  /** undefined: not accepted. */
  read(text: string): Value | undefined;
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>;

/** What the options of a table are worth on one command line. */
export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table]: Table[Name] extends Option<infer Value> ? Value : never;
};

/** An option that takes a value, and must be given unless it is made `optional` or gets a default. */
function option<Value>(
  placeholder: string,
  help: string,
  takes: string,
  read: (text: string) => Value | undefined,
): Option<Value> {
  // A required option has no fallback; nothing reads it.
  return { placeholder, help, takes, required: true, fallback: undefined as Value, read };
}

export function optional<Value>(required: Option<Value>): Option<Value | undefined> {
  return { ...required, required: false, fallback: undefined };
}

export function withDefault<Value>(required: Option<Value>, fallback: Value): Option<Value> {
  return { ...required, required: false, fallback };
}

export function flag(help: string): Option<boolean> {
  return { help, takes: "no value", required: false, fallback: false, read: () => true };
}

export function path(placeholder: string, help: string): Option<string> {
  return option(placeholder, help, "a path", (text) => (text === "" ? undefined : text));
}

export function text(placeholder: string, help: string): Option<string> {
  return option(placeholder, help, "text", (given) => given);
}

export function word(placeholder: string, help: string, takes: string): Option<string> {
  return option(placeholder, help, takes, (given) => (given === "" ? undefined : given));
}

export function integer(
  placeholder: string,
  help: string,
  low: number,
  high: number = Number.MAX_SAFE_INTEGER,
): Option<number> {
  const takes =
    high === Number.MAX_SAFE_INTEGER ? `an integer from ${low}` : `an integer from ${low} to ${high}`;
  return option(placeholder, help, takes, (given) => {
    const value = /^[+-]?\d+$/.test(given) ? Number(given) : Number.NaN;
    return Number.isSafeInteger(value) && value >= low && value <= high ? value : undefined;
  });
}

/** A finite decimal number, from `low` on or (`above`) greater than it. */
export function decimal(
  placeholder: string,
  help: string,
  low: number,
  { above = false }: { readonly above?: boolean } = {},
): Option<number> {
  return option(placeholder, help, above ? `a number above ${low}` : `a number from ${low}`, (given) => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(given) ? Number(given) : Number.NaN;
    return Number.isFinite(value) && (above ? value > low : value >= low) ? value : undefined;
  });
}

/** One of the keys; worth what stands behind it. */
export function choice<Value>(
  placeholder: string,
  help: string,
  values: Readonly<Record<string, Value>>,
): Option<Value> {
  return option(placeholder, help, `one of ${Object.keys(values).join(", ")}`, (given) =>
    Object.hasOwn(values, given) ? values[given] : undefined,
  );
}

/** A value with a syntax of its own. */
export function parsed<Value>(
  placeholder: string,
  help: string,
  takes: string,
  read: (text: string) => Value | undefined,
): Option<Value> {
  return option(placeholder, help, takes, read);
}

/** Reads the arguments behind a command. UsageError for anything that is not exactly understood. */
export function parseOptions<Table extends OptionTable>(
  table: Table,
  args: readonly string[],
): OptionValues<Table> {
  const types = Object.entries(table).map(([name, { placeholder }]) => [
    name,
    { type: placeholder === undefined ? ("boolean" as const) : ("string" as const) },
  ]);
  // Not strict: its messages say less than the ones below.
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(types),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const given = new Map<string, unknown>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      throw new UsageError(`${JSON.stringify(token.value)} is not understood; only options are`);
    }
    const { name, rawName, value, inlineValue } = token;
    if (!Object.hasOwn(table, name)) {
      const names = Object.keys(table).map((known) => `--${known}`);
      throw new UsageError(`${rawName} is no option here${suggestion(rawName, names)}`);
    }
    if (given.has(name)) throw new UsageError(`${rawName} is given twice; takes one`);
    given.set(name, readValue(rawName, table[name], value, inlineValue === true));
  }
  const values: Record<string, unknown> = {};
  for (const [name, { required, fallback, placeholder, takes }] of Object.entries(table)) {
    if (required && !given.has(name)) {
      throw new UsageError(`--${name} ${placeholder} is missing; takes ${takes}`);
    }
    values[name] = given.has(name) ? given.get(name) : fallback;
  }
  return values as OptionValues<Table>;
}

function readValue(
  name: string,
  wanted: Option<unknown>,
  value: string | undefined,
  inline: boolean,
): unknown {
  if (wanted.placeholder === undefined) {
    if (value !== undefined) throw new UsageError(`${name} is ${JSON.stringify(value)}; takes no value`);
    return true;
  }
  // A value that looks like an option was most likely forgotten; a number may be negative.
  const forgotten = value === undefined || (!inline && /^-[^\d.]/.test(value));
  if (forgotten) {
    const hint = value === undefined ? "" : ` (a value that begins with - is written ${name}=${value})`;
    throw new UsageError(`${name} has no value; takes ${wanted.takes}${hint}`);
  }
  const read = wanted.read(value);
  if (read === undefined) throw new UsageError(`${name} is ${JSON.stringify(value)}; takes ${wanted.takes}`);
  return read;
}
