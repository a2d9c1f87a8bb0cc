import { type BackendRuntime, type ErrorCode, FlashMoeError } from "@flash-moe/core";

/** An error of the addon as one of ours. */
export function toFlashMoeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code, message } = error as Error & { code?: unknown };
  return typeof code === "string" && isErrorCode(code) ? new FlashMoeError(code, message) : error;
}

/** Likewise; and a loss of the device is reported. */
export function fromNative(error: unknown, runtime: BackendRuntime): unknown {
  const told = toFlashMoeError(error);
  if (FlashMoeError.is(told) && told.code === "DEVICE_LOST") {
    runtime.lose({ reason: "unknown", message: told.message });
  }
  return told;
}

/** The codes that the addon uses. */
const codes: ReadonlySet<string> = new Set<ErrorCode>([
  "UNAVAILABLE",
  "UNSUPPORTED",
  "OUT_OF_MEMORY",
  "DEVICE_LOST",
  "DISPOSED",
  "INVALID_ARGUMENT",
  "BACKEND_FAILED",
]);

function isErrorCode(code: string): code is ErrorCode {
  return codes.has(code);
}
