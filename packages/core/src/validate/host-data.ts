import type { Capabilities, DeviceBuffer } from "../backend.js";
import { describe } from "../describe.js";
import { bytesPerElement, type DType, dtypes, matchesDType, type TypedArray } from "../dtype.js";
import { FlashMoeError } from "../errors.js";

/** Bytes of an allocation that is legal on a backend. INVALID_ARGUMENT or UNSUPPORTED else. */
export function checkAllocation(
  backend: { readonly name: string; readonly capabilities: Capabilities },
  dtype: DType,
  length: number,
  label: string,
): number {
  const { capabilities } = backend;
  const name = label === "" ? "length" : `length of ${label}`;
  if (!dtypes.includes(dtype)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `dtype is ${describe(dtype)}; takes one of ${dtypes.join(", ")}`,
    );
  }
  if (dtype !== "i32" && !capabilities.dtypes[dtype].has("storage")) {
    throw new FlashMoeError("UNSUPPORTED", `${backend.name} cannot store ${dtype}`);
  }
  if (!Number.isSafeInteger(length) || length < 0) {
    throw new FlashMoeError("INVALID_ARGUMENT", `${name} is ${describe(length)}; takes an integer from 0`);
  }
  const bytes = length * bytesPerElement(dtype);
  if (bytes > capabilities.maxBufferBytes) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${name} is ${length} ${dtype} (${bytes} bytes); ${backend.name} takes up to ${capabilities.maxBufferBytes} bytes in one buffer`,
    );
  }
  return bytes;
}

/** INVALID_ARGUMENT unless `data` is the host array type of `dtype`. */
export function checkHostArray(data: TypedArray, dtype: DType): void {
  if (ArrayBuffer.isView(data) && matchesDType(data, dtype)) return;
  const accepted = { f32: "Float32Array", i32: "Int32Array", f16: "Uint16Array", bf16: "Uint16Array" };
  throw new FlashMoeError(
    "INVALID_ARGUMENT",
    `data is ${describe(data)}; a ${dtype} buffer takes ${accepted[dtype]}`,
  );
}

/** INVALID_ARGUMENT unless `length` elements from `offset` on lie inside the buffer. */
export function checkRange(what: string, buffer: DeviceBuffer, offset: number, length: number): void {
  const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!valid || offset + length > buffer.length) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${what} of ${describe(length)} elements at offset ${describe(offset)}; the buffer has ${buffer.length}`,
    );
  }
}
