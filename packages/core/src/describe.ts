/** A value in a message: short, whatever it is. */
export function describe(value: unknown): string {
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return String(value);
  return value.constructor?.name ?? "an object";
}
