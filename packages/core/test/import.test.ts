import { expect, it, vi } from "vitest";

type Properties = Map<PropertyKey, PropertyDescriptor | undefined>;

function propertiesOf(object: object): Properties {
  return new Map(Reflect.ownKeys(object).map((key) => [key, Object.getOwnPropertyDescriptor(object, key)]));
}

/** Keys that came, went or changed, by identity. */
function changes(before: Properties, after: Properties): PropertyKey[] {
  const keys = [...new Set([...before.keys(), ...after.keys()])];
  return keys.filter((key) => {
    const [left, right] = [before.get(key), after.get(key)];
    return (["value", "get", "set"] as const).some((part) => !Object.is(left?.[part], right?.[part]));
  });
}

it("importing the package changes no global and registers nothing", async () => {
  vi.resetModules();
  const objects = [
    globalThis,
    ...[Array, Object, Promise, Float32Array, Error].map((type) => type.prototype),
  ];
  objects.map(propertiesOf); // Node loads some of its globals, with more behind them, when they are looked at
  const before = objects.map(propertiesOf);
  const core = await import("@flash-moe/core");
  expect(objects.map((object, n) => changes(before[n], propertiesOf(object)))).toEqual(objects.map(() => []));
  expect(core.opNames).toHaveLength(10);
});
