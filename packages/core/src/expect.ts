import { describe } from "./describe.js";
import { FlashMoeError } from "./errors.js";

/** INVALID_ARGUMENT unless `value` is an integer from `min` to `max`. */
export function expectInteger(
  name: string,
  value: number,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  const to = max === Number.MAX_SAFE_INTEGER ? "" : ` to ${max}`;
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `${name} is ${describe(value)}; takes an integer from ${min}${to}`,
  );
}

/** INVALID_ARGUMENT unless `value` is one of `accepted`. */
export function expectOneOf<Value>(name: string, value: Value, accepted: readonly Value[]): void {
  if (accepted.includes(value)) return;
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `${name} is ${describe(value)}; takes one of ${accepted.join(", ")}`,
  );
}
