import { FlashMoeError } from "@flash-moe/core";
import { expect } from "vitest";

/** A safetensors file from the text (or bytes, or value) of its header, with `dataLength` bytes 0, 1, 2, ... behind. */
export function rawFile(header: unknown, dataLength = 0, headerLength?: number | bigint): Uint8Array {
  const bytes =
    header instanceof Uint8Array
      ? header
      : new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + bytes.length + dataLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerLength ?? bytes.length), true);
  file.set(bytes, 8);
  for (let i = 0; i < dataLength; i++) file[8 + bytes.length + i] = i;
  return file;
}

/** The header of a file that is valid, parsed. */
export function headerOf(file: Uint8Array): { text: string; json: Record<string, never> } {
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const text = new TextDecoder().decode(file.subarray(8, 8 + length));
  return { text, json: JSON.parse(text) };
}

/** The error that `work` rejects with: one of ours, with this code, and a message with each of the parts. */
export async function expectError(
  work: Promise<unknown>,
  code: FlashMoeError["code"],
  ...parts: (string | RegExp)[]
): Promise<FlashMoeError> {
  const error: unknown = await work.then(
    () => expect.unreachable("it did not reject"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FlashMoeError);
  const ours = error as FlashMoeError;
  expect(ours.code, ours.message).toBe(code);
  for (const part of parts) expect(ours.message).toMatch(part);
  return ours;
}
