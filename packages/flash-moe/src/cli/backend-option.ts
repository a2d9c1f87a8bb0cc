import { existsSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { isAbsolute, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Backend } from "@flash-moe/core";
import { type BackendAttempt, builtInBackends, openBackend } from "../backends/open-backend.js";
import type { CommandContext } from "./command.js";
import { resolveContributedImports } from "./contributed-imports.js";
import { type Option, withDefault, word } from "./options.js";

const names = ["auto", ...builtInBackends.map((provider) => provider.name)];

/** `--backend`, the same in every command that has it. */
export function backendOption(fallback = "auto"): Option<string> {
  const help = `${names.join(", ")}, or a module whose default export is a backend provider`;
  return withDefault(word("NAME", help, `one of ${names.join(", ")}, or a module`), fallback);
}

/** Opens what `--backend` names, says which it is and why, and disposes of it after `work`. */
export async function withBackend<Result>(
  name: string,
  context: CommandContext,
  work: (backend: Backend) => Promise<Result>,
): Promise<Result> {
  const backend = await openNamedBackend(name, context);
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
export async function openNamedBackend(name: string, context: CommandContext): Promise<Backend> {
  let tried: readonly BackendAttempt[] = [];
  if (!names.includes(name)) resolveContributedImports();
  const backend = await openBackend(resolveBackend(name, context.io.cwd), {
    onChoice: (attempts) => {
      tried = attempts;
    },
  });
  const refused = tried.filter((attempt) => attempt.reason !== undefined);
  const reasons = refused.map((attempt) => `${attempt.name}: ${attempt.reason}`).join("; ");
  context.say(`backend ${backend.name} on ${backend.device}${reasons === "" ? "" : ` (${reasons})`}`);
  return backend;
}

/**
 * What `openBackend` takes for what was given on the command line: a path is one from the caller's folder,
 * and a package is looked for from there first.
 */
export function resolveBackend(name: string, cwd: string): string {
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
