import {
  type AbortSignalLike,
  type Backend,
  bytesPerElement,
  type DType,
  decode,
  elementCount,
  encode,
  FlashMoeError,
  type FloatDType,
  Tensor,
  type TypedArray,
} from "@flash-moe/core";
import { bitsPerElement, type SafetensorsDType, toFloatDType, toSafetensorsDType } from "./format.js";
import { quote } from "./quote.js";
import type { SafetensorsFile } from "./safetensors-file.js";
import type { SafetensorsEntry } from "./write-header.js";

/** Bytes of a file that are on the host at once. */
const pieceBytes = 16 * 1024 * 1024;

export interface UploadOptions {
  /** What to round the elements to (nearest, ties to even); by default what the file has, f32 for F64. */
  readonly dtype?: FloatDType;
  /** By default the shape in the file. */
  readonly shape?: readonly number[];
  readonly label?: string;
  /** Rejects with its reason; the new tensor is disposed then. */
  readonly signal?: AbortSignalLike;
  /** Called with the bytes of the file that were read since the last call. */
  readonly onPiece?: (name: string, bytes: number) => void;
}

/**
 * A new tensor on `backend` with the elements of one tensor of a file, or of several one after the
 * other, in pieces of at most 16 MiB. INVALID_CHECKPOINT unless they are F32, F16, BF16 or F64.
 */
export async function uploadFromFile(
  file: SafetensorsFile,
  name: string | readonly string[],
  backend: Backend,
  options: UploadOptions = {},
): Promise<Tensor<FloatDType>> {
  const names = typeof name === "string" ? [name] : name;
  const infos = names.map((part) => floatTensor(file, part));
  const dtype = options.dtype ?? toFloatDType(infos[0].dtype) ?? "f32";
  const shape = options.shape ?? infos[0].shape;
  const buffer = backend.alloc(dtype, elementCount(shape), { label: options.label, zeroed: false });
  try {
    let offset = 0;
    for (const [index, part] of names.entries()) {
      const { dtype: fileDType, byteLength } = infos[index];
      const elementBytes = bitsPerElement(fileDType) / 8;
      for (let at = 0; at < byteLength; at += pieceBytes) {
        options.signal?.throwIfAborted();
        const bytes = await file.readBytes(part, at, Math.min(pieceBytes, byteLength - at));
        options.signal?.throwIfAborted();
        backend.write(buffer, toHostArray(bytes, fileDType, dtype), offset);
        offset += bytes.length / elementBytes;
        // The device catches up, so that what it keeps aside stays small.
        await backend.sync();
        options.onPiece?.(part, bytes.length);
      }
    }
    return new Tensor<FloatDType>(buffer, shape);
  } catch (error) {
    buffer.dispose();
    throw error;
  }
}

/** A tensor on a device as an entry of a file: read from the device, in pieces, while it is written. */
export function deviceEntry(
  name: string,
  tensor: Tensor,
  options: {
    /** What to round the elements to; by default the tensor's own dtype. */
    readonly dtype?: DType;
    /** Only these elements, from the first to before the last; by default all. */
    readonly range?: readonly [begin: number, end: number];
    /** By default the tensor's own. */
    readonly shape?: readonly number[];
  } = {},
): SafetensorsEntry {
  const dtype = options.dtype ?? tensor.dtype;
  const [begin, end] = options.range ?? [0, tensor.buffer.length];
  const { backend, buffer } = tensor;
  return {
    name,
    dtype: dtype === "i32" ? "I32" : toSafetensorsDType(dtype),
    shape: options.shape ?? tensor.shape,
    async *chunks() {
      const step = pieceBytes / bytesPerElement(buffer.dtype);
      // An empty tensor is read too: it may be disposed, or its device lost.
      for (let at = begin; at === begin || at < end; at += step) {
        const piece = await backend.read(buffer, at, Math.min(step, end - at));
        yield bytesOf(convert(piece, buffer.dtype, dtype));
      }
    },
  };
}

/** Elements on the host as an entry of a file. */
export function hostEntry(
  name: string,
  dtype: "F64" | "I64" | "F32" | "I32" | "F16" | "BF16",
  shape: readonly number[],
  elements: TypedArray | Float64Array | BigInt64Array,
): SafetensorsEntry {
  return {
    name,
    dtype,
    shape,
    async *chunks() {
      yield bytesOf(elements);
    },
  };
}

function floatTensor(
  file: SafetensorsFile,
  name: string,
): { dtype: SafetensorsDType; shape: readonly number[]; byteLength: number } {
  const info = file.tensors.get(name);
  if (info === undefined) {
    throw new FlashMoeError("INVALID_CHECKPOINT", `${file.name} has no tensor ${quote(name)}`);
  }
  if (info.dtype !== "F64" && toFloatDType(info.dtype) === undefined) {
    throw new FlashMoeError(
      "INVALID_CHECKPOINT",
      `${file.name}: tensor ${quote(name)} has dtype ${info.dtype}; takes F32, F16, BF16 or F64`,
    );
  }
  return info;
}

/** Little-endian bytes of a file as host elements of `dtype`. */
function toHostArray(bytes: Uint8Array, from: SafetensorsDType, dtype: FloatDType): TypedArray {
  const { buffer, byteOffset, byteLength } = aligned(bytes, bitsPerElement(from) / 8);
  if (from === "F64") return encode(new Float64Array(buffer, byteOffset, byteLength / 8), dtype);
  if (from === "F32") return convert(new Float32Array(buffer, byteOffset, byteLength / 4), "f32", dtype);
  return convert(new Uint16Array(buffer, byteOffset, byteLength / 2), toFloatDType(from)!, dtype);
}

/** Typed arrays need their bytes at a multiple of the element size. */
function aligned(bytes: Uint8Array, elementBytes: number): Uint8Array {
  return bytes.byteOffset % elementBytes === 0 ? bytes : bytes.slice();
}

function convert(data: TypedArray, from: DType, to: DType): TypedArray {
  return from === to ? data : encode(decode(data, from), to);
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
