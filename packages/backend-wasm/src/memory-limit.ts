import { maxMemoryBytes } from "./linear-memory.js";

/** What the limit is where nothing says how much memory there is. */
const unknownLimit = 2 * 2 ** 30;

/** The part of free memory that is used: the rest is for the engine, its garbage and other processes. */
const share = 0.8;

interface Environment {
  process?: {
    availableMemory?: () => number;
    getBuiltinModule?: (name: string) => { freemem?: () => number } | undefined;
  };
  navigator?: { deviceMemory?: number };
}

/**
 * Bytes that buffers and scratch may take by default: four fifths of the memory that is free (Node, Bun, Deno), half
 * of what a browser says that the device has (it does not say how much is free), else 2 GiB; never more than one
 * WebAssembly memory holds.
 */
export function defaultMemoryLimitBytes(environment: Environment = globalThis as Environment): number {
  const free = freeBytes(environment);
  const gigabytes = environment.navigator?.deviceMemory;
  let limit = unknownLimit;
  if (free !== undefined) limit = share * free;
  else if (gigabytes !== undefined && gigabytes > 0) limit = (gigabytes / 2) * 2 ** 30;
  return Math.min(Math.floor(limit), maxMemoryBytes);
}

function freeBytes({ process }: Environment): number | undefined {
  try {
    // The first obeys the limit of a container. Neither needs an import, which a browser could not resolve.
    const bytes = process?.availableMemory?.() ?? process?.getBuiltinModule?.("node:os")?.freemem?.();
    return bytes !== undefined && bytes > 0 ? bytes : undefined;
  } catch {
    // Deno without the permission to ask.
    return undefined;
  }
}
