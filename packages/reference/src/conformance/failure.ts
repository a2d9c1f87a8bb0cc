import { type ErrorCode, FlashMoeError } from "@flash-moe/core";

/** The backend answered, and wrongly: the case fails and the backend stays in use. */
export class ConformanceFailure extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "ConformanceFailure";
  }
}

/** Fails the case with `message` unless `condition` holds. */
export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ConformanceFailure(message);
}

/** Fails unless `actual` is `expected`, as Object.is sees it. */
export function checkEqual(what: string, actual: unknown, expected: unknown): void {
  check(Object.is(actual, expected), `${what} is ${String(actual)}; expected ${String(expected)}`);
}

/** Fails unless both arrays have the same type, length and bits. */
export function checkSameBits(what: string, actual: ArrayBufferView, expected: ArrayBufferView): void {
  const actualType = actual.constructor.name;
  const expectedType = expected.constructor.name;
  check(actualType === expectedType, `${what} is of type ${actualType}; expected ${expectedType}`);
  check(
    actual.byteLength === expected.byteLength,
    `${what} has ${actual.byteLength} bytes; expected ${expected.byteLength}`,
  );
  const left = new Uint8Array(actual.buffer, actual.byteOffset, actual.byteLength);
  const right = new Uint8Array(expected.buffer, expected.byteOffset, expected.byteLength);
  const at = left.findIndex((byte, n) => byte !== right[n]);
  if (at < 0) return;
  const width = (actual as unknown as Uint8Array).BYTES_PER_ELEMENT;
  const index = Math.floor(at / width);
  const elements = [actual, expected].map((view) => (view as unknown as Uint8Array)[index]);
  throw new ConformanceFailure(`${what}[${index}] is ${elements[0]}; expected exactly ${elements[1]}`);
}

/** Fails unless `work` throws an error with `code`; returns it. */
export function checkThrows(what: string, code: ErrorCode, work: () => unknown): FlashMoeError {
  try {
    work();
  } catch (error) {
    return checkCode(what, code, error);
  }
  throw new ConformanceFailure(`${what} does not throw; expected ${code}`);
}

/** Fails unless the promise is rejected with `code`; returns the error. */
export async function checkRejects(
  what: string,
  code: ErrorCode,
  work: () => Promise<unknown>,
): Promise<FlashMoeError> {
  let promise: Promise<unknown>;
  try {
    promise = work();
  } catch (error) {
    throw new ConformanceFailure(`${what} throws; expected a rejected promise`, { cause: error });
  }
  try {
    await promise;
  } catch (error) {
    return checkCode(what, code, error);
  }
  throw new ConformanceFailure(`${what} is fulfilled; expected ${code}`);
}

function checkCode(what: string, code: ErrorCode, error: unknown): FlashMoeError {
  if (!FlashMoeError.is(error)) {
    throw new ConformanceFailure(
      `${what} gives ${String(error)}, which is no FlashMoeError; expected ${code}`,
      {
        cause: error,
      },
    );
  }
  if (error.code !== code) {
    throw new ConformanceFailure(`${what} gives ${error.code} (${error.message}); expected ${code}`, {
      cause: error,
    });
  }
  return error;
}
