import { cuda } from "@flash-moe/backend-cuda";
import { wasm } from "@flash-moe/backend-wasm";
import { webgpu } from "@flash-moe/backend-webgpu";
import { type Backend, type BackendProvider, FlashMoeError, type ProbeResult } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";

/** The built-in backends, best first: the order in which `openBackend` tries them. */
export const builtInBackends: readonly BackendProvider[] = [cuda, webgpu, wasm, reference];

/** What became of one backend on the way to an open one. */
export interface BackendAttempt {
  readonly name: string;
  /** Why it was not taken; undefined for the one that was. */
  readonly reason: string | undefined;
}

export interface OpenBackendOptions {
  /** Tried in this order when no name is given. Default: `builtInBackends`. */
  readonly providers?: readonly BackendProvider[];
  /** Is told the choice: one entry a backend that was tried, the chosen one last. */
  readonly onChoice?: (attempts: readonly BackendAttempt[]) => void;
}

/**
 * Opens a backend: the one that is named ("cuda", "webgpu", "wasm", "reference", or for a contributed one
 * a module specifier whose default export is its provider), or with "auto" the first that works. Only a
 * name gets a software GPU adapter. UNAVAILABLE with every reason.
 */
export async function openBackend(name = "auto", options: OpenBackendOptions = {}): Promise<Backend> {
  const providers = options.providers ?? builtInBackends;
  const attempts: BackendAttempt[] = [];
  if (name !== "auto") {
    const provider =
      providers.find((candidate) => candidate.name === name) ?? (await importProvider(name, providers));
    const backend = await openChecked(provider);
    options.onChoice?.([{ name: provider.name, reason: undefined }]);
    return backend;
  }
  for (const provider of providers) {
    let reason: string;
    try {
      const probe = await provider.probe();
      if (!probe.available) {
        reason = probe.reason;
      } else if (probe.software) {
        reason = `${probe.device} computes on the CPU; it is used only when asked for by name`;
      } else {
        const backend = await openChecked(provider);
        attempts.push({ name: provider.name, reason: undefined });
        options.onChoice?.(attempts);
        return backend;
      }
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    attempts.push({ name: provider.name, reason });
  }
  const reasons = attempts.map((attempt) => `${attempt.name}: ${attempt.reason}`).join("; ");
  throw new FlashMoeError("UNAVAILABLE", `no backend is available (${reasons})`);
}

/** What each backend says of itself, in order. Never throws. */
export async function probeBackends(
  providers: readonly BackendProvider[] = builtInBackends,
): Promise<readonly { readonly name: string; readonly probe: ProbeResult }[]> {
  return Promise.all(
    providers.map(async (provider) => {
      try {
        return { name: provider.name, probe: await provider.probe() };
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        return { name: provider.name, probe: { available: false, reason } as const };
      }
    }),
  );
}

/** The provider that is the default export of the module `specifier`. */
async function importProvider(
  specifier: string,
  providers: readonly BackendProvider[],
): Promise<BackendProvider> {
  const names = providers.map((provider) => provider.name).join(", ");
  const accepted = `takes auto, ${names}, or a module whose default export is a backend provider`;
  let module: { default?: unknown };
  try {
    module = await import(/* @vite-ignore */ specifier);
  } catch (error) {
    const detail = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new FlashMoeError(
      "UNAVAILABLE",
      `backend is ${specifier}, which cannot be imported (${detail}); ${accepted}`,
      {
        cause: error,
      },
    );
  }
  const provider = module.default as Partial<BackendProvider> | undefined;
  if (typeof provider?.open !== "function" || typeof provider.probe !== "function") {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `backend is ${specifier}, whose default export has no probe() and open(); ${accepted}`,
    );
  }
  return provider as BackendProvider;
}

async function openChecked(provider: BackendProvider): Promise<Backend> {
  const backend = await provider.open();
  if (backend.specVersion !== 1) {
    await backend.dispose();
    throw new FlashMoeError(
      "UNSUPPORTED",
      `backend ${provider.name} follows version ${String(backend.specVersion)} of the contract; takes 1`,
    );
  }
  return backend;
}
