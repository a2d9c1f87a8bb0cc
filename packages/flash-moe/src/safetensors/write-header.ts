import { elementCount, FlashMoeError } from "@flash-moe/core";
import { bitsPerElement, headerPrefixBytes, maxHeaderBytes } from "./format.js";
import { quote } from "./quote.js";

/** The dtypes that are written. */
export type WritableDType = "F64" | "I64" | "F32" | "I32" | "F16" | "BF16";

/** A tensor to be written, its bytes made while they are written. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: WritableDType;
  readonly shape: readonly number[];
  /** The elements, little-endian and row-major, in pieces; called once. */
  chunks(): AsyncIterable<Uint8Array>;
}

/** A file that is about to be written. */
export interface FileLayout {
  /** Everything before the data. */
  readonly header: Uint8Array;
  /** In the order of their data. */
  readonly entries: readonly (SafetensorsEntry & { readonly byteLength: number })[];
  readonly dataLength: number;
}

/**
 * Lays a file out: wide elements first, then by name, so that every tensor is aligned to its elements
 * and the same tensors always give the same file. The header is padded with spaces to 8 bytes.
 *
 * INVALID_ARGUMENT for a name that occurs twice, is reserved or has half a surrogate pair, for a shape
 * that is none, and for a header that readers would refuse.
 */
export function layOutFile(
  entries: readonly SafetensorsEntry[],
  metadata: Readonly<Record<string, string>>,
): FileLayout {
  const sorted = entries.map((entry) => ({
    name: entry.name,
    dtype: entry.dtype,
    shape: entry.shape,
    chunks: () => entry.chunks(),
    byteLength: elementCount(entry.shape) * (bitsPerElement(entry.dtype) / 8),
  }));
  sorted.sort((a, b) => bitsPerElement(b.dtype) - bitsPerElement(a.dtype) || compareText(a.name, b.name));

  const names = new Set<string>();
  const fields: string[] = [];
  const pairs = Object.entries(metadata).sort(([a], [b]) => compareText(a, b));
  if (pairs.length > 0) {
    const strings = pairs.map(
      ([key, value]) => `${jsonString("metadata key", key)}:${jsonString(key, value)}`,
    );
    fields.push(`"__metadata__":{${strings.join(",")}}`);
  }
  let end = 0;
  for (const { name, dtype, shape, byteLength } of sorted) {
    if (names.has(name)) throw new FlashMoeError("INVALID_ARGUMENT", `entries has ${quote(name)} twice`);
    if (name === "__metadata__") {
      throw new FlashMoeError("INVALID_ARGUMENT", `entries has "__metadata__"; takes other names of tensors`);
    }
    names.add(name);
    const begin = end;
    end += byteLength;
    fields.push(
      `${jsonString("name", name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`,
    );
  }
  return { header: encodeHeader(`{${fields.join(",")}}`), entries: sorted, dataLength: end };
}

function encodeHeader(json: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const length = Math.ceil(text.length / 8) * 8;
  if (length > maxHeaderBytes) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `the header of ${length} bytes is too long for readers; takes up to ${maxHeaderBytes}`,
    );
  }
  const header = new Uint8Array(headerPrefixBytes + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(text, headerPrefixBytes);
  return header;
}

function jsonString(what: string, text: string): string {
  if (typeof text !== "string" || /\p{Surrogate}/u.test(text)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${what} is ${quote(String(text))}; takes text of whole characters`,
    );
  }
  return JSON.stringify(text);
}

/** By UTF-16 code units: the same on every machine, whatever its language. */
function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
