import { expect, it, vi } from "vitest";

/** Every own property of the global object, by key. */
function globals(): Map<PropertyKey, PropertyDescriptor | undefined> {
  return new Map(
    Reflect.ownKeys(globalThis).map((key) => [key, Object.getOwnPropertyDescriptor(globalThis, key)]),
  );
}

it("importing the package changes no global and registers nothing", async () => {
  vi.resetModules();
  const prototypes = [Array, Object, Promise, Float32Array, Error].map((type) => type.prototype);
  const own = () => prototypes.map((prototype) => Reflect.ownKeys(prototype));
  const before = { globals: globals(), own: own() };
  const core = await import("@flash-moe/core");
  expect({ globals: globals(), own: own() }).toEqual(before);
  expect(core.opNames).toHaveLength(10);
});
