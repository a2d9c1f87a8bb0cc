import { Scope, withScope } from "@flash-moe/core";
import { expect, it } from "vitest";

function resource() {
  let disposals = 0;
  return {
    dispose: () => {
      disposals++;
    },
    get disposals() {
      return disposals;
    },
  };
}

it("disposes what it owns at its end, once, except what is kept", () => {
  const scope = new Scope();
  const [a, b] = [scope.own(resource()), scope.own(resource())];
  scope.own(a);
  scope.end([b]);
  scope.end();
  expect([a.disposals, b.disposals]).toEqual([1, 0]);
});

it("keeps what the result names, and disposes the rest", () => {
  const temporary = resource();
  const result = withScope(
    (scope) => {
      scope.own(temporary);
      return scope.own(resource());
    },
    (kept) => [kept],
  );
  expect([temporary.disposals, result.disposals]).toEqual([1, 0]);
});

it("disposes everything when the work throws", () => {
  const made = [resource(), resource()];
  const work = (scope: Scope) => {
    for (const one of made) scope.own(one);
    throw new Error("half-way");
  };
  expect(() => withScope(work, () => made)).toThrow("half-way");
  expect(made.map(({ disposals }) => disposals)).toEqual([1, 1]);
});
