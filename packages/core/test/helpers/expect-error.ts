import { type ErrorCode, FlashMoeError } from "@flash-moe/core";
import { expect } from "vitest";

function check(error: unknown, code: ErrorCode, parts: readonly string[]): FlashMoeError {
  expect(error, "throws an error of flash-moe").toBeInstanceOf(FlashMoeError);
  const ours = error as FlashMoeError;
  expect({ code: ours.code, message: ours.message }).toMatchObject({ code });
  for (const part of parts) expect(ours.message).toContain(part);
  return ours;
}

/** `work` throws an error with `code` whose message has every one of `parts`. */
export function expectThrow(work: () => unknown, code: ErrorCode, ...parts: string[]): FlashMoeError {
  let thrown: unknown;
  try {
    work();
  } catch (error) {
    thrown = error;
  }
  return check(thrown, code, parts);
}

/** `promise` rejects with an error with `code` whose message has every one of `parts`. */
export async function expectReject(
  promise: Promise<unknown>,
  code: ErrorCode,
  ...parts: string[]
): Promise<FlashMoeError> {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  return check(thrown, code, parts);
}
