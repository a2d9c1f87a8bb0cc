import { FlashMoeError } from "@flash-moe/core";
import { expect, it, vi } from "vitest";

it("is an Error with a code, a name and a cause", () => {
  const cause = new Error("inside");
  const error = new FlashMoeError("IO_FAILED", "cannot read x", { cause });
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ code: "IO_FAILED", message: "cannot read x", name: "FlashMoeError", cause });
});

it("recognises its own, and nothing else", () => {
  expect(FlashMoeError.is(new FlashMoeError("DISPOSED", "gone"))).toBe(true);
  for (const other of [new Error("x"), null, undefined, "DISPOSED", { code: "DISPOSED" }, () => {}]) {
    expect(FlashMoeError.is(other)).toBe(false);
  }
});

it("recognises errors of another copy of the package", async () => {
  vi.resetModules();
  const copy = await import("@flash-moe/core");
  const foreign = new copy.FlashMoeError("DEVICE_LOST", "from the other copy");
  expect(copy.FlashMoeError).not.toBe(FlashMoeError);
  expect(foreign).not.toBeInstanceOf(FlashMoeError);
  expect(FlashMoeError.is(foreign)).toBe(true);
  expect(FlashMoeError.from(foreign, "BACKEND_FAILED", "context")).toBe(foreign);
});

it("does not show its mark among the fields of an error", () => {
  expect(Object.keys(new FlashMoeError("DISPOSED", "gone")).sort()).toEqual(["code", "name"]);
});

it("wraps what is no error of ours, with the context before its message", () => {
  const cause = new TypeError("x is not a function");
  const wrapped = FlashMoeError.from(cause, "BACKEND_FAILED", "wasm: linear");
  expect(wrapped).toMatchObject({
    code: "BACKEND_FAILED",
    message: "wasm: linear: x is not a function",
    cause,
  });
  expect(FlashMoeError.from("out of luck", "IO_FAILED", "reading").message).toBe("reading: out of luck");
});
