import { FlashMoeError } from "@flash-moe/core";
import { bitsPerElement, isSafetensorsDType, type SafetensorsDType, safetensorsDTypes } from "./format.js";
import { JsonCursor, type Label } from "./json-cursor.js";
import { quote } from "./quote.js";

/** What a header says of one tensor. */
export interface TensorEntry {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Offset of its first byte from the first byte after the header. */
  readonly begin: number;
  readonly byteLength: number;
}

export interface Header {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/** Dimensions of one tensor: more than any framework has, few enough that a header cannot fill the memory with them. */
const maxRank = 64;

/**
 * Reads the JSON header of a safetensors file with `dataLength` bytes after it: one object, from tensor
 * names to dtype, shape and data_offsets, and under `__metadata__` strings. The tensors must cover the
 * data without gap or overlap. Time and memory are linear in the length of the text.
 *
 * INVALID_CHECKPOINT for anything else; the message begins with `context`.
 */
export function readHeader(text: string, dataLength: number, context: string): Header {
  const cursor = new JsonCursor(text, context);
  const metadata = new Map<string, string>();
  const tensors = new Map<string, TensorEntry>();
  if (!text.startsWith("{")) fail(context, `the header begins with ${quote(text.slice(0, 1))}; takes "{"`);
  cursor.object(
    () => "the header",
    (name) => {
      if (name === "__metadata__") {
        cursor.object(
          () => "__metadata__",
          (key) => {
            metadata.set(
              key,
              cursor.string(() => `__metadata__ ${quote(key)}`),
            );
          },
        );
      } else {
        tensors.set(
          name,
          readTensorEntry(cursor, context, () => `tensor ${quote(name)}`),
        );
      }
    },
  );
  cursor.end();
  checkCoverage(tensors, dataLength, context);
  return { metadata, tensors };
}

function readTensorEntry(cursor: JsonCursor, context: string, tensor: Label): TensorEntry {
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  cursor.object(tensor, (key) => {
    if (key === "dtype") dtype = cursor.string(() => `dtype of ${tensor()}`);
    else if (key === "shape") shape = readSizes(cursor, context, () => `shape of ${tensor()}`, maxRank);
    else if (key === "data_offsets")
      offsets = readSizes(cursor, context, () => `data_offsets of ${tensor()}`, 2);
    // A field that is not understood may change what the bytes mean, so none is passed over.
    else fail(context, `${tensor()} has the field ${quote(key)}; takes dtype, shape and data_offsets`);
  });
  if (dtype === undefined || shape === undefined || offsets?.length !== 2) {
    fail(context, `${tensor()} lacks a field; takes dtype, shape and data_offsets of two numbers`);
  }
  if (!isSafetensorsDType(dtype)) {
    fail(context, `dtype of ${tensor()} is ${quote(dtype)}; takes one of ${safetensorsDTypes.join(", ")}`);
  }
  const [begin, end] = offsets as [number, number];
  const byteLength = bytesOfShape(dtype, shape, context, tensor);
  if (end - begin !== byteLength) {
    fail(
      context,
      `data_offsets of ${tensor()} are [${begin}, ${end}]; ${dtype} of shape [${shape}] takes ${byteLength} bytes`,
    );
  }
  return { dtype, shape, begin, byteLength };
}

/** An array of at most `limit` integers from 0 to 2^53 - 1. */
function readSizes(cursor: JsonCursor, context: string, where: Label, limit: number): number[] {
  const sizes: number[] = [];
  cursor.array(where, () => {
    const digits = cursor.number(() => `a number in ${where()}`);
    const value = Number(digits.slice(0, 17));
    if (!/^(0|[1-9]\d{0,15})$/.test(digits) || !Number.isSafeInteger(value)) {
      const shown = digits.length > 32 ? `${digits.slice(0, 32)}...` : digits;
      fail(context, `${where()} has ${shown}; takes integers from 0 to ${Number.MAX_SAFE_INTEGER}`);
    }
    if (sizes.length === limit) fail(context, `${where()} has more than ${limit} numbers`);
    sizes.push(value);
  });
  return sizes;
}

function bytesOfShape(
  dtype: SafetensorsDType,
  shape: readonly number[],
  context: string,
  tensor: Label,
): number {
  let bits = bitsPerElement(dtype);
  for (const size of shape) {
    bits *= size;
    if (!Number.isSafeInteger(bits)) {
      fail(context, `shape of ${tensor()} is [${shape}], more than 2^50 bytes of ${dtype}`);
    }
  }
  if (bits % 8 !== 0) {
    fail(
      context,
      `shape of ${tensor()} is [${shape}]; ${dtype} takes a number of elements that fills its last byte`,
    );
  }
  return bits / 8;
}

/** Every byte of the data belongs to exactly one tensor. */
function checkCoverage(tensors: ReadonlyMap<string, TensorEntry>, dataLength: number, context: string): void {
  const entries = [...tensors];
  entries.sort(([, a], [, b]) => a.begin - b.begin || a.byteLength - b.byteLength);
  let covered = 0;
  let previous = "";
  for (const [name, { begin, byteLength }] of entries) {
    const wrong = (what: string): never =>
      fail(context, `tensor ${quote(name)} is at bytes ${begin} to ${begin + byteLength}${what}`);
    if (begin + byteLength > dataLength) {
      wrong(`, the data has ${dataLength}: the file is truncated or its header wrong`);
    }
    if (begin < covered) wrong(`, where tensor ${quote(previous)} ends only at ${covered}`);
    if (begin > covered) wrong(`; bytes ${covered} to ${begin} belong to no tensor`);
    covered += byteLength;
    previous = name;
  }
  if (covered < dataLength) {
    fail(
      context,
      `the tensors end at byte ${covered}, the data at ${dataLength}; takes nothing after the last tensor`,
    );
  }
}

function fail(context: string, what: string): never {
  throw new FlashMoeError("INVALID_CHECKPOINT", `${context}: ${what}`);
}
