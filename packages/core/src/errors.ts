/** Stable for a whole major version; messages are not. */
export type ErrorCode =
  | "UNAVAILABLE"
  | "UNSUPPORTED"
  | "OUT_OF_MEMORY"
  | "DEVICE_LOST"
  | "DISPOSED"
  | "FOREIGN_BUFFER"
  | "INVALID_ARGUMENT"
  | "INVALID_CHECKPOINT"
  | "IO_FAILED"
  | "COMPILE_FAILED"
  | "BACKEND_FAILED";

/** Registered, so that an error of another copy of this package is still recognised. */
const marker = Symbol.for("flash-moe.error");

/**
 * The one error class of flash-moe. `code` says what went wrong and never changes within a major
 * version; `message` names the argument, the value it had and what would be accepted.
 */
export class FlashMoeError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "FlashMoeError";
    this.code = code;
    Object.defineProperty(this, marker, { value: true });
  }

  /** True for errors of this class, also when they come from another copy of the package. */
  static is(error: unknown): error is FlashMoeError {
    return typeof error === "object" && error !== null && marker in error;
  }

  /** The error itself if it is ours, else one of ours with `code` that has it as its cause. */
  static from(error: unknown, code: ErrorCode, context: string): FlashMoeError {
    if (FlashMoeError.is(error)) return error;
    const detail = error instanceof Error ? error.message : String(error);
    return new FlashMoeError(code, `${context}: ${detail}`, { cause: error });
  }
}
