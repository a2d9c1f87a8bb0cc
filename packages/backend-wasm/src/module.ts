import { FlashMoeError } from "@flash-moe/core";
import { type EmbeddedModule, plainModule, relaxedModule } from "./modules.generated.js";
import { webAssembly } from "./web-assembly.js";

/** Which build of the kernels: with 128-bit SIMD, or with relaxed SIMD (fused multiply-add) too. */
export type Variant = "simd" | "relaxed-simd";

const modules: Readonly<Record<Variant, EmbeddedModule>> = {
  simd: plainModule,
  "relaxed-simd": relaxedModule,
};

const compiled: Partial<Record<string, Promise<object>>> = {};

/** The best build that this engine takes; undefined if it takes none. */
export function bestVariant(): Variant | undefined {
  return (["relaxed-simd", "simd"] as const).find((variant) => isSupported(variant));
}

export function isSupported(variant: Variant): boolean {
  return webAssembly()?.validate(bytesOf(variant)) ?? false;
}

/** Why no build of the kernels can run here. */
export function unsupportedReason(): string {
  return webAssembly() === undefined
    ? "this runtime has no WebAssembly; use another backend"
    : "this runtime has no WebAssembly SIMD (every engine since 2023 has it); use another backend";
}

/** Compiles once. UNAVAILABLE where the page's content security policy forbids it. */
export async function compileModule(variant: Variant, shared = false): Promise<object> {
  const engine = webAssembly();
  if (engine === undefined) throw new FlashMoeError("UNAVAILABLE", unsupportedReason());
  const key = `${variant} ${shared}`;
  compiled[key] ??= engine.compile(bytesOf(variant, shared));
  try {
    return await compiled[key];
  } catch (error) {
    delete compiled[key];
    throw new FlashMoeError(
      "UNAVAILABLE",
      "this page or runtime does not let WebAssembly be compiled; a content security policy must allow " +
        `'wasm-unsafe-eval' (${error instanceof Error ? error.message : String(error)})`,
      { cause: error },
    );
  }
}

/** The module itself, decoded from what is embedded; `shared`: for a memory that threads share. */
export function bytesOf(variant: Variant, shared = false): Uint8Array {
  const { atob } = globalThis as unknown as { atob(text: string): string };
  const { base64, sharedFlagOffset } = modules[variant];
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  if (shared) bytes[sharedFlagOffset] = 3;
  return bytes;
}
