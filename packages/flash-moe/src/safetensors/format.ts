import type { FloatDType } from "@flash-moe/core";

/** Bytes before the header, which say how long it is (little-endian). */
export const headerPrefixBytes: number = 8;

/** The longest header that is read or written, as in the format's own library. */
export const maxHeaderBytes: number = 100_000_000;

/** Bits per element of every dtype that the safetensors format knows. */
const bitsByDType = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
} as const;

/** Element type of a tensor in a safetensors file, as the file spells it. */
export type SafetensorsDType = keyof typeof bitsByDType;

/** All of them, narrow to wide. */
export const safetensorsDTypes: readonly SafetensorsDType[] = Object.keys(bitsByDType) as SafetensorsDType[];

const known: ReadonlySet<string> = new Set(safetensorsDTypes);

export function isSafetensorsDType(name: string): name is SafetensorsDType {
  return known.has(name);
}

/** Bits of one element; three dtypes have less than 8. */
export function bitsPerElement(dtype: SafetensorsDType): number {
  return bitsByDType[dtype];
}

const fromStorage: Readonly<Record<FloatDType, "F32" | "F16" | "BF16">> = {
  f32: "F32",
  f16: "F16",
  bf16: "BF16",
};

/** How a file spells a storage dtype. */
export function toSafetensorsDType(dtype: FloatDType): "F32" | "F16" | "BF16" {
  return fromStorage[dtype];
}

/** The storage dtype that a file's dtype is, if it is one. */
export function toFloatDType(dtype: SafetensorsDType): FloatDType | undefined {
  if (dtype === "F32") return "f32";
  if (dtype === "F16") return "f16";
  return dtype === "BF16" ? "bf16" : undefined;
}
