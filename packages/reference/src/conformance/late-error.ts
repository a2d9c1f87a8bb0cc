import type { Backend, OpName } from "@flash-moe/core";
import { check, checkRejects } from "./failure.js";

/** The op met a number that it can only see on the device: the next await says so, the one after it does not. */
export async function checkLateError(backend: Backend, op: OpName): Promise<void> {
  const error = await checkRejects(`sync after ${op} out of range`, "INVALID_ARGUMENT", () => backend.sync());
  check(error.message.includes(op), `the message "${error.message}" does not name ${op}`);
  await backend.sync();
}

/** Numbers that are no index of `limit` elements: just outside on both sides, and as far as i32 goes. */
export function outsideOf(limit: number): readonly number[] {
  return [-1, limit, 0x7fffffff, -0x80000000];
}
