import { checkOptions, takes } from "@flash-moe/core";
import { describe, expect, it } from "vitest";
import { expectThrow } from "./helpers/expect-error.js";

interface Options {
  threads?: number;
  mode?: "fast" | "exact";
  trace?: boolean;
  path?: string;
  device?: object;
}

const check = (options: unknown): void =>
  checkOptions<Options>("abacus", options as Options, {
    threads: takes.wholeNumber(1, 64),
    mode: takes.oneOf("fast", "exact"),
    trace: takes.flag,
    path: takes.text,
    device: takes.object("a device", "open"),
  });

describe("checkOptions", () => {
  it("lets through what follows the rules, and what is undefined", () => {
    expect(() => check({})).not.toThrow();
    expect(() =>
      check({ threads: 64, mode: "exact", trace: false, path: "a", device: { open() {} } }),
    ).not.toThrow();
    expect(() => check({ threads: undefined, mode: undefined })).not.toThrow();
  });

  it.each<[unknown, string]>([
    [{ thread: 1 }, "abacus has no option thread; takes threads, mode, trace, path, device"],
    [{ toString: 1 }, "abacus has no option toString; takes threads"],
    [{ thread: undefined }, "abacus has no option thread"],
    [{ threads: 0 }, "abacus: threads is 0; takes a whole number from 1 to 64"],
    [{ threads: 65 }, "threads is 65"],
    [{ threads: 1.5 }, "threads is 1.5"],
    [{ threads: "4" }, 'threads is "4"; takes a whole number'],
    [{ threads: null }, "threads is null"],
    [{ mode: "quick" }, 'mode is "quick"; takes fast or exact'],
    [{ trace: 1 }, "trace is 1; takes true or false"],
    [{ path: "" }, 'path is ""; takes text'],
    [{ device: {} }, "device is Object; takes a device"],
    [{ device: null }, "device is null; takes a device"],
    [null, "abacus: options is null; takes an object"],
    [["threads"], "abacus: options is Array; takes an object"],
    ["threads", 'abacus: options is "threads"; takes an object'],
  ])("refuses %j", (options, message) => {
    expectThrow(() => check(options), "INVALID_ARGUMENT", message);
  });

  it("says of a provider without options that it takes none", () => {
    expectThrow(
      () => checkOptions<object>("abacus", { a: 1 }, {}),
      "INVALID_ARGUMENT",
      "no option a; takes none",
    );
  });

  it("leaves out an end that is none", () => {
    expect(takes.wholeNumber(0).takes).toBe("a whole number from 0");
    expect(takes.wholeNumber(0).accepts(2 ** 53)).toBe(false);
  });
});
