import { register } from "node:module";

let registered = false;

/**
 * Lets a contributed backend anywhere on the disk import `@flash-moe/core` and its siblings: what Node does
 * not find beside the module is taken from where flash-moe itself is installed.
 */
export function resolveContributedImports(): void {
  if (registered) return;
  registered = true;
  const hooks = `export async function resolve(specifier, context, next) {
    try {
      return await next(specifier, context);
    } catch (error) {
      if (error.code !== "ERR_MODULE_NOT_FOUND" || !specifier.startsWith("@flash-moe/")) throw error;
      try {
        return await next(specifier, { ...context, parentURL: ${JSON.stringify(import.meta.url)} });
      } catch {
        throw error; // which names the module that imports it
      }
    }
  }`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}
