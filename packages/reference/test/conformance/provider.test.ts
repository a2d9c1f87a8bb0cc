import type { BackendProvider } from "@flash-moe/core";
import { reference } from "@flash-moe/reference";
import { ConformanceSession, runConformance } from "@flash-moe/reference/conformance";
import { describe, expect, it } from "vitest";

const ofProvider = /^capabilities\/(probe|options)$/;

async function failures(change: Partial<BackendProvider>): Promise<string[]> {
  const { results } = await runConformance(
    { ...reference, ...change },
    { filter: (id) => ofProvider.test(id) },
  );
  expect(results).toHaveLength(2);
  return results.flatMap(({ id, error }) => (error === undefined ? [] : [`${id}: ${error.message}`]));
}

describe("what is asked of a provider", () => {
  it("the reference gives", async () => {
    expect(await failures({})).toEqual([]);
  });

  it("is not asked where a function opens the backends", () => {
    const session = new ConformanceSession(() => reference.open());
    expect(session.cases.filter(({ id }) => ofProvider.test(id))).toEqual([]);
  });

  it("probe never throws", async () => {
    const probe = async () => {
      throw new Error("no driver");
    };
    expect(await failures({ probe })).toEqual([
      "capabilities/probe: probe throws Error: no driver; it says what is wrong as { available: false, reason }",
      "capabilities/options: probe throws Error: no driver; it says what is wrong as { available: false, reason }",
    ]);
  });

  it("probe says available of what opens", async () => {
    const probe = async () => ({ available: false, reason: "no device" }) as const;
    expect(await failures({ probe })).toEqual([
      'capabilities/probe: probe gives {"available":false,"reason":"no device"}, and open() opens; expected { available: true, device }',
    ]);
  });

  it("probe answers", async () => {
    const probe = async () => undefined as never;
    expect((await failures({ probe }))[0]).toContain("probe gives undefined, and open() opens");
  });

  it("options are not passed over", async () => {
    const ignoring: Partial<BackendProvider> = {
      probe: () => reference.probe(),
      open: () => reference.open(),
    };
    expect(await failures(ignoring)).toEqual([
      "capabilities/options: open with an option that nobody has is fulfilled; expected INVALID_ARGUMENT",
    ]);
    const probing: Partial<BackendProvider> = { probe: () => reference.probe() };
    expect(await failures(probing)).toEqual([
      'capabilities/options: probe with an option that nobody has gives {"available":true,"device":"CPU, plain TypeScript (float64)"}; expected { available: false, reason }',
    ]);
  });
});
