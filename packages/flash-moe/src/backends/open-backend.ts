import { type CudaOptions, cuda } from "@flash-moe/backend-cuda";
import { type WasmOptions, wasm } from "@flash-moe/backend-wasm";
import { type WebGpuOptions, webgpu } from "@flash-moe/backend-webgpu";
import {
  type Backend,
  type BackendProvider,
  checkOptions,
  FlashMoeError,
  type ProbeResult,
  takes,
} from "@flash-moe/core";
import { type ReferenceOptions, reference } from "@flash-moe/reference";

/** The built-in backends, best first: the order in which `openBackend` tries them. */
export const builtInBackends: readonly BackendProvider[] = [cuda, webgpu, wasm, reference];

/** What became of one backend on the way to an open one. */
export interface BackendAttempt {
  readonly name: string;
  /** Why it was not taken; undefined for the one that was. */
  readonly reason: string | undefined;
}

/** What providers are probed and opened with, by their names: `{ wasm: { threads: 1 }, cuda: { device: 1 } }`. */
export interface BackendOptions {
  readonly cuda?: CudaOptions;
  readonly webgpu?: WebGpuOptions;
  readonly wasm?: WasmOptions;
  readonly reference?: ReferenceOptions;
  /** Those of a contributed backend, under its provider's name. */
  readonly [name: string]: object | undefined;
}

export interface OpenBackendOptions {
  /** Tried in this order when no name is given. Default: `builtInBackends`. */
  readonly providers?: readonly BackendProvider[];
  /** For each backend its own; those of backends that are not tried are left alone. */
  readonly options?: BackendOptions;
  /** Is told the choice: one entry a backend that was tried, the chosen one last. */
  readonly onChoice?: (attempts: readonly BackendAttempt[]) => void;
}

/**
 * Opens a backend: the one that is named ("cuda", "webgpu", "wasm", "reference", or for a contributed one a
 * module whose default export is its provider: a package, an absolute path or a URL), or with "auto" the
 * first that works. Only a name gets a software GPU adapter. UNAVAILABLE with every reason; INVALID_ARGUMENT
 * for options that their backend does not take.
 */
export async function openBackend(name = "auto", options: OpenBackendOptions = {}): Promise<Backend> {
  checkOptions("openBackend", options, optionRules);
  const { providers = builtInBackends, options: given = {}, onChoice } = options;
  const attempts: BackendAttempt[] = [];
  if (name !== "auto") {
    const provider = await findProvider(name, providers);
    checkNames(given, [...providers, provider]);
    const backend = await openChecked(provider, given[provider.name]);
    onChoice?.([{ name: provider.name, reason: undefined }]);
    return backend;
  }
  checkNames(given, providers);
  for (const provider of providers) {
    const own = given[provider.name];
    let reason: string;
    try {
      const probe = await provider.probe(own);
      if (!probe.available && own === undefined) {
        reason = probe.reason;
      } else if (probe.available && probe.software) {
        reason = `${probe.device} computes on the CPU; it is used only when asked for by name`;
      } else {
        // With options also where there is nothing to open: only `open` tells wrong ones from an absent device.
        const backend = await openChecked(provider, own);
        attempts.push({ name: provider.name, reason: undefined });
        onChoice?.(attempts);
        return backend;
      }
    } catch (error) {
      // Wrong options are a mistake to be mended, no reason to take another backend.
      if (own !== undefined && FlashMoeError.is(error) && error.code === "INVALID_ARGUMENT") throw error;
      reason = error instanceof Error ? error.message : String(error);
    }
    attempts.push({ name: provider.name, reason });
  }
  const reasons = attempts.map((attempt) => `${attempt.name}: ${attempt.reason}`).join("; ");
  throw new FlashMoeError("UNAVAILABLE", `no backend is available (${reasons})`);
}

const optionRules = {
  providers: { takes: "an array of providers", accepts: Array.isArray },
  options: takes.object("an object with the options of each backend under its name"),
  onChoice: { takes: "a function", accepts: (value: unknown) => typeof value === "function" },
};

/** Options under a name that is nobody's would be passed over without a word. */
function checkNames(given: BackendOptions, providers: readonly BackendProvider[]): void {
  const names = [...new Set(providers.map((provider) => provider.name))];
  const stray = Object.keys(given).find((name) => !names.includes(name));
  if (stray === undefined) return;
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `openBackend: options has ${stray}, which is no backend; takes ${names.join(", ")}`,
  );
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

/** The provider of that name, else the one that is the default export of the module `name`. */
export async function findProvider(
  name: string,
  providers: readonly BackendProvider[] = builtInBackends,
): Promise<BackendProvider> {
  return providers.find((candidate) => candidate.name === name) ?? importProvider(name, providers);
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
    module = await import(/* @vite-ignore */ /* webpackIgnore: true */ specifier);
  } catch (error) {
    const detail = error instanceof Error ? error.message.split("\n")[0] : String(error);
    const relative = /^\.\.?\//.test(specifier)
      ? `; a relative path is one from flash-moe's own folder: make it absolute, or new URL(${JSON.stringify(specifier)}, import.meta.url).href`
      : "";
    throw new FlashMoeError(
      "UNAVAILABLE",
      `backend is ${specifier}, which cannot be imported (${detail})${relative}; ${accepted}`,
      { cause: error },
    );
  }
  const provider = module.default as Partial<BackendProvider> | undefined;
  const missing = [
    ...(typeof provider?.name === "string" && provider.name !== "" ? [] : ["name"]),
    ...(typeof provider?.probe === "function" ? [] : ["probe()"]),
    ...(typeof provider?.open === "function" ? [] : ["open()"]),
  ];
  if (missing.length > 0) {
    const exported = Object.keys(module).join(", ") || "nothing";
    const what =
      provider === undefined
        ? `which exports ${exported}, and no default`
        : `whose default export has no ${missing.join(" and ")}`;
    throw new FlashMoeError("INVALID_ARGUMENT", `backend is ${specifier}, ${what}; ${accepted}`);
  }
  return provider as BackendProvider;
}

async function openChecked(provider: BackendProvider, options: object | undefined): Promise<Backend> {
  const backend = (await provider.open(options)) as Backend | undefined;
  if (backend?.specVersion === 1) return backend;
  if (backend?.specVersion === undefined) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `open() of backend ${provider.name} gave no backend; takes what defineBackend() returns`,
    );
  }
  await (backend as Backend).dispose();
  throw new FlashMoeError(
    "UNSUPPORTED",
    `backend ${provider.name} follows version ${String(backend.specVersion)} of the contract; takes 1`,
  );
}
