import { existsSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { isAbsolute, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Backend, BackendProvider } from "@flash-moe/core";
import { type BackendAttempt, builtInBackends, findProvider, openBackend } from "../backends/open-backend.js";
import type { CommandContext } from "./command.js";
import { resolveContributedImports } from "./contributed-imports.js";
import { type Option, optional, parsed, withDefault, word } from "./options.js";
import { UsageError } from "./usage-error.js";

const names = ["auto", ...builtInBackends.map((provider) => provider.name)];

/** `--backend` and `--backend-options`, the same in every command that has them. */
export function backendOptions(fallback = "auto"): {
  readonly backend: Option<string>;
  readonly "backend-options": Option<Readonly<Record<string, OptionValue>> | undefined>;
} {
  const help = `${names.join(", ")}, or a module whose default export is a backend provider`;
  const accepted = "KEY=VALUE,..., each key once";
  return {
    backend: withDefault(word("NAME", help, `one of ${names.join(", ")}, or a module`), fallback),
    "backend-options": optional(
      parsed("K=V,...", "options that it has, for instance threads=1 of wasm", accepted, readOptions),
    ),
  };
}

/** What `backendOptions` is worth on a command line. */
export interface BackendChoice {
  readonly backend: string;
  readonly "backend-options": Readonly<Record<string, OptionValue>> | undefined;
}

type OptionValue = boolean | number | string;

function readOptions(text: string): Readonly<Record<string, OptionValue>> | undefined {
  const values = new Map<string, OptionValue>();
  for (const pair of text.split(",")) {
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined || values.has(key)) return undefined;
    values.set(key, readValue(value));
  }
  return Object.fromEntries(values);
}

function readValue(text: string): OptionValue {
  if (text === "true" || text === "false") return text === "true";
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** Opens what `--backend` names, says which it is and why, and disposes of it after `work`. */
export async function withBackend<Result>(
  choice: BackendChoice,
  context: CommandContext,
  work: (backend: Backend) => Promise<Result>,
): Promise<Result> {
  const backend = await openChosenBackend(choice, context);
  let result: Result;
  try {
    result = await work(backend);
  } catch (error) {
    // What went wrong first is what is told.
    await backend.dispose().catch(() => {});
    throw error;
  }
  await backend.dispose();
  return result;
}

/** Opens what `--backend` names and says which it is and why. UNAVAILABLE with every reason. */
export async function openChosenBackend(choice: BackendChoice, context: CommandContext): Promise<Backend> {
  const provider = await chosenProvider(choice, context);
  let tried: readonly BackendAttempt[] = [];
  const backend = await openBackend(provider?.name, {
    providers: provider === undefined ? undefined : [provider],
    onChoice: (attempts) => {
      tried = attempts;
    },
  });
  const refused = tried.filter((attempt) => attempt.reason !== undefined);
  const reasons = refused.map((attempt) => `${attempt.name}: ${attempt.reason}`).join("; ");
  context.say(`backend ${backend.name} on ${backend.device}${reasons === "" ? "" : ` (${reasons})`}`);
  return backend;
}

/** The provider that `--backend` names, with its `--backend-options`; undefined where openBackend is to choose. */
export async function chosenProvider(
  choice: BackendChoice,
  { io }: CommandContext,
): Promise<BackendProvider | undefined> {
  const { backend: name, "backend-options": options } = choice;
  if (options !== undefined && (name === "auto" || name === "all")) {
    throw new UsageError(`--backend-options are those of one backend; --backend is ${name}, takes its name`);
  }
  if (name === "auto") return undefined;
  if (!names.includes(name)) resolveContributedImports();
  const provider = await findProvider(resolveBackend(name, io.cwd));
  if (options === undefined) return provider;
  return {
    name: provider.name,
    probe: (more) => provider.probe({ ...options, ...more }),
    open: (more) => provider.open({ ...options, ...more }),
  };
}

/**
 * What `findProvider` takes for what was given on the command line: a path is one from the caller's folder,
 * and a package is looked for from there first.
 */
function resolveBackend(name: string, cwd: string): string {
  if (names.includes(name) || /^[a-z][a-z\d+.-]+:/i.test(name)) return name;
  const file = resolve(cwd, name);
  if (/^\.\.?([/\\]|$)/.test(name) || isAbsolute(name) || isFile(file)) return pathToFileURL(file).href;
  try {
    return pathToFileURL(createRequire(join(cwd, "flash-moe")).resolve(name)).href;
  } catch {
    return name; // then from where flash-moe itself is installed
  }
}

function isFile(path: string): boolean {
  return existsSync(path) && statSync(path).isFile();
}
