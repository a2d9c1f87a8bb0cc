/** The parts of Node that are used. Not imported: this package also loads in a browser, as a part of flash-moe. */
export interface NodeModules {
  readonly fs: typeof import("node:fs");
  readonly module: typeof import("node:module");
}

/** Undefined in a browser, and wherever else addons of Node cannot be loaded. */
export function nodeModules(): NodeModules | undefined {
  const builtin = globalThis.process?.getBuiltinModule;
  const fs = builtin?.("node:fs");
  const module = builtin?.("node:module");
  return fs === undefined || module === undefined ? undefined : { fs, module };
}
