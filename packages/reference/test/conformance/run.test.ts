import { type Backend, type BackendProvider, FlashMoeError, opNames } from "@flash-moe/core";
import {
  type ConformanceResult,
  ConformanceSession,
  conformanceCases,
  requiredBackends,
  runConformance,
} from "@flash-moe/reference/conformance";
import { describe, expect, it } from "vitest";
import { type Change, openWrapped } from "./wrapped-backend.js";

const one = (id: string) => (candidate: string) => candidate === id;

const absent: BackendProvider = {
  name: "absent",
  probe: async () => ({ available: false, reason: "there is no such device here" }),
  open: async () => {
    throw new FlashMoeError("UNAVAILABLE", "there is no such device here");
  },
};

/** Counts how many backends are opened and are still open. */
function counted(change?: Change): { open: () => Promise<Backend>; opened: Backend[] } {
  const opened: Backend[] = [];
  const open = async () => {
    const backend = await openWrapped(change);
    opened.push(backend);
    return backend;
  };
  return { open, opened };
}

describe("the cases", () => {
  it("have ids of their own", () => {
    const ids = conformanceCases.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("run every op", async () => {
    const called = new Set<string>();
    const open = () =>
      openWrapped((correct) => ({
        ops: Object.fromEntries(
          opNames.map((op) => [
            op,
            (call: never) => {
              called.add(op);
              correct.ops[op]!(call);
            },
          ]),
        ),
      }));
    await runConformance(open, { filter: (id) => id.startsWith("repeatability/") });
    expect(called).toEqual(new Set(opNames));
  });
});

describe("runConformance", () => {
  it("reports what passed, on what", async () => {
    const seen: ConformanceResult[] = [];
    const report = await runConformance(openWrapped, {
      filter: (id) => id.startsWith("mlp-forward/f32/odd"),
      onResult: (result) => seen.push(result),
    });
    expect(report).toMatchObject({ backend: "wrapped", passed: 1, failed: 0, skipped: 0, ok: true });
    expect(report.device).not.toBe("");
    expect(report.results).toEqual(seen);
    expect(seen[0]).toMatchObject({ id: "mlp-forward/f32/odd-sizes", status: "passed" });
    expect(seen[0].worst!.what).toMatch(/^output\[\d+\]$/);
    expect(seen[0].worst!.budget).toBeLessThan(1);
  });

  it("says which element is wrong, by how much, and how much of the tolerance that is", async () => {
    const change: Change = (_, { inner, enqueue }) => ({
      ops: { linear: ({ output }) => enqueue(() => inner.write(output, new Float32Array(output.length))) },
    });
    const { results, ok } = await runConformance(() => openWrapped(change), {
      filter: one("linear/f32/one-by-one"),
    });
    expect(ok).toBe(false);
    expect(results[0].error!.message).toMatch(
      /^output\[0\] is 0; expected -?[\d.]+ within [\d.e-]+, so \d+% of the tolerance is used$/,
    );
  });

  it("skips an absent backend, with the reason, which is no pass", async () => {
    const report = await runConformance(absent);
    expect(report).toMatchObject({ backend: "absent", passed: 0, failed: 0, skipped: 1, ok: false });
    expect(report.results[0].reason).toContain("no such device");
  });

  it("fails an absent backend that is required", async () => {
    const report = await runConformance(absent, { required: true });
    expect(report).toMatchObject({ failed: 1, skipped: 0, ok: false });
    expect(report.results[0].error).toMatchObject({ code: "UNAVAILABLE" });
  });

  it("fails a backend that cannot be opened for another reason, required or not", async () => {
    const report = await runConformance(async () => {
      throw new FlashMoeError("BACKEND_FAILED", "the driver is broken");
    });
    expect(report).toMatchObject({ failed: 1, ok: false });
  });

  it("stops between cases when it is aborted, with the reason, and closes the backend", async () => {
    const controller = new AbortController();
    const { open, opened } = counted();
    const running = runConformance(open, {
      signal: controller.signal,
      onResult: () => controller.abort(new Error("enough")),
    });
    await expect(running).rejects.toThrow("enough");
    expect(opened).toHaveLength(1);
    expect(opened[0].disposed).toBe(true);
  });

  it("skips by what the backend declares", async () => {
    const open = async () => openWrapped((correct) => ({ ...correct, forceLoss: undefined }));
    const { results } = await runConformance(open, { filter: (id) => id.startsWith("lost-device/") });
    expect(results.map(({ status }) => status)).toEqual(["skipped", "skipped", "skipped"]);
    expect(results[0].reason).toBe("cannot lose its device on request");
  });

  it("leaves large cases out unless they are asked for", () => {
    const idsOf = (large: boolean) => new ConformanceSession(absent, { large }).cases.map(({ id }) => id);
    expect(idsOf(false).filter((id) => id.startsWith("large/"))).toEqual([]);
    expect(idsOf(true).filter((id) => id.startsWith("large/")).length).toBeGreaterThan(0);
  });
});

describe("a session", () => {
  const caseOf = (id: string) => conformanceCases.find((candidate) => candidate.id === id)!;

  it("uses one backend for all cases, and closes it", async () => {
    const { open, opened } = counted();
    const session = new ConformanceSession(open);
    for (const { status } of [
      await session.run(caseOf("linear/f32/one-by-one")),
      await session.run(caseOf("buffers/copy")),
    ]) {
      expect(status).toBe("passed");
    }
    expect(opened).toHaveLength(1);
    await session.close();
    expect(opened[0].disposed).toBe(true);
  });

  it("goes on with the same backend after a wrong result, and with a new one after an unexpected error", async () => {
    let fault: "wrong" | "throws" | "none" = "wrong";
    const { open, opened } = counted((correct) => ({
      ops: {
        linear(call) {
          if (fault === "throws") throw new Error("out of order");
          if (fault === "none") correct.ops.linear!(call);
        },
      },
    }));
    const session = new ConformanceSession(open);
    const linear = caseOf("linear/f32/one-by-one");
    expect((await session.run(linear)).status).toBe("failed");
    expect(opened).toHaveLength(1);
    fault = "throws";
    expect((await session.run(linear)).error).toMatchObject({ code: "BACKEND_FAILED" });
    expect(opened[0].disposed).toBe(true);
    fault = "none";
    expect((await session.run(linear)).status).toBe("passed");
    expect(opened).toHaveLength(2);
    await session.close();
  });

  it("finds memory that a case does not get back", async () => {
    const { open } = counted();
    const session = new ConformanceSession(open);
    const leaking = {
      id: "leaking",
      needs: () => true as const,
      run: async ({ backend }: { backend: Backend }) => void backend.alloc("f32", 100),
    };
    const { status, error } = await session.run(leaking);
    expect(status).toBe("failed");
    expect(error!.message).toBe("memory().liveBytes was 0 before and is 400 after");
    await session.close();
  });

  it("finds an error that comes late", async () => {
    const session = new ConformanceSession(() =>
      openWrapped((correct, { runtime }) => ({
        ops: {
          linear(call) {
            correct.ops.linear!(call);
            runtime.fail(new FlashMoeError("BACKEND_FAILED", "too late"));
          },
        },
      })),
    );
    // The read that the case waits for, or the runner itself where a case waits for nothing.
    expect((await session.run(caseOf("linear/f32/one-by-one"))).error!.message).toBe("too late");
    await session.close();
  });

  it("gives up a case that hangs", async () => {
    const session = new ConformanceSession(() => openWrapped(() => ({ read: () => new Promise(() => {}) })), {
      caseMilliseconds: 50,
    });
    const { status, error } = await session.run(caseOf("linear/f32/one-by-one"));
    expect(status).toBe("failed");
    expect(error!.message).toBe("linear/f32/one-by-one did not finish within 50 ms");
  });
});

describe("requiredBackends", () => {
  it.each([
    [undefined, []],
    ["", []],
    ["webgpu", ["webgpu"]],
    [" webgpu, cuda ,", ["webgpu", "cuda"]],
  ])("of %j", (variable, names) => {
    expect([...requiredBackends(variable)]).toEqual(names);
  });
});
