/** What the limit is where nothing says how much memory there is. */
const unknownLimit = 2 * 2 ** 30;

/** The part of free memory that is used: the rest is for the engine, its garbage and other processes. */
const share = 0.8;

/** What an engine may tell of the machine's memory. */
export interface HostEnvironment {
  process?: {
    availableMemory?: () => number;
    getBuiltinModule?: (name: string) => { freemem?: () => number } | undefined;
  };
  navigator?: { deviceMemory?: number };
}

/**
 * Bytes that buffers and scratch of a backend in host memory may take by default: four fifths of the memory
 * that is free (Node, Bun, Deno), half of what a browser says that the device has (it does not say how much
 * is free), else 2 GiB.
 */
export function hostMemoryLimitBytes(environment: HostEnvironment = globalThis as HostEnvironment): number {
  const free = freeBytes(environment);
  if (free !== undefined) return Math.floor(share * free);
  const gigabytes = environment.navigator?.deviceMemory;
  return gigabytes !== undefined && gigabytes > 0 ? Math.floor((gigabytes / 2) * 2 ** 30) : unknownLimit;
}

function freeBytes({ process }: HostEnvironment): number | undefined {
  try {
    // The first obeys the limit of a container. Neither needs an import, which a browser could not resolve.
    const bytes = process?.availableMemory?.() ?? process?.getBuiltinModule?.("node:os")?.freemem?.();
    return bytes !== undefined && bytes > 0 ? bytes : undefined;
  } catch {
    // Deno without the permission to ask.
    return undefined;
  }
}
