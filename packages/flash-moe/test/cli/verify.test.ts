import { reference } from "@flash-moe/reference";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { contribute, hostProvider } from "./contributed-backend.js";
import { Shell } from "./helpers.js";

let shell: Shell;
beforeEach(async () => {
  shell = await Shell.open();
});
afterEach(() => shell.close());

interface Report {
  readonly ok: boolean;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly results: readonly { id: string; status: string; error?: string; reason?: string }[];
}

describe("flash-moe verify", () => {
  it("passes the reference backend, by op", async () => {
    const { code, stdout, stderr } = await shell.run("verify --backend reference --only router-select");
    expect(stderr).toBe("backend reference on CPU, plain TypeScript (float64)\n");
    expect(stdout).toMatch(/^ +passed +failed +skipped/m);
    expect(stdout).toMatch(/^router-select\S* +\d+ /m);
    expect(stdout).toMatch(/: conforms, \d+ passed, 0 failed, 0 skipped\n$/);
    expect(code).toBe(0);
  });

  it("gives every case to a machine", async () => {
    const report = (await shell.json("verify --backend reference --only linear/f32")) as unknown as Report;
    expect(report).toMatchObject({ backend: "reference", ok: true, failed: 0 });
    expect(report.results).toHaveLength(report.passed);
    expect(report.results.every(({ id, status }) => id.includes("linear/f32") && status === "passed")).toBe(
      true,
    );
  });

  it("fails a contributed backend that is wrong, and tells where", async () => {
    await contribute(shell, hostProvider({ read: (data) => data.fill(1) }));
    const { code, stdout } = await shell.run("verify --backend ./mine.mjs --json");
    const report = JSON.parse(stdout) as Report;
    expect(code).toBe(1);
    expect(report.ok).toBe(false);
    expect(report.failed).toBeGreaterThan(0);
    expect(report.skipped).toBeGreaterThan(0);
    for (const { status, error, reason } of report.results) {
      if (status === "failed") expect(error).toMatch(/\w/);
      if (status === "skipped") expect(reason).toMatch(/has no op|does not store|cannot lose|does not know/);
    }
    const people = await shell.run("verify --backend ./mine.mjs");
    expect(people.code).toBe(1);
    expect(people.stdout).toMatch(/^FAILED \S+\n {2}\S/m);
    expect(people.stdout).toMatch(
      /mine on nothing: DOES NOT CONFORM, \d+ passed, [1-9]\d* failed, [1-9]\d* skipped\n$/,
    );
    expect(people.stdout).toMatch(/^ *\d+ {2}has no op \w+$/m);
  });

  it("fails a backend that hangs, and tells in which case", async () => {
    await contribute(shell, hostProvider({ sync: () => new Promise(() => {}) }));
    const { code, stdout } = await shell.run(
      "verify --backend ./mine.mjs --timeout 1 --only capabilities/declared",
    );
    expect(stdout).toMatch(
      /FAILED capabilities\/declared\n {2}capabilities\/declared did not finish within 1000 ms/,
    );
    expect(code).toBe(1);
  });

  it("fails a provider that throws from probe, or takes any option", async () => {
    await contribute(shell, {
      name: "mine",
      probe: async () => {
        throw new Error("no driver");
      },
      open: () => reference.open(),
    });
    const { code, stdout } = await shell.run("verify --backend ./mine.mjs --only capabilities/");
    expect(stdout).toMatch(
      /FAILED capabilities\/probe\n {2}probe throws Error: no driver; it says what is wrong/,
    );
    expect(stdout).toMatch(
      /FAILED capabilities\/options\n {2}open with an option that nobody has is fulfilled/,
    );
    expect(code).toBe(1);
  });

  it("an absent backend is an error, and so is no case at all", async () => {
    await contribute(shell, {
      name: "mine",
      probe: async () => ({ available: false, reason: "no device" }),
      open: async () => {
        throw new Error("no device");
      },
    });
    const absent = await shell.run("verify --backend ./mine.mjs");
    expect(absent.code).toBe(1);
    expect(absent.stdout).toBe("");
    const none = await shell.run("verify --backend reference --only nonsense");
    expect(none.code).toBe(1);
    expect(none.stderr).toMatch(/INVALID_ARGUMENT: --only nonsense: no case has an id that contains it\n$/);
  });
});
