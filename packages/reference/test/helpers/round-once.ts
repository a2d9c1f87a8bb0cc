import { bf16ToFloat32, type FloatDType, f16ToFloat32, float32ToBf16, float32ToF16 } from "@flash-moe/core";

/**
 * The numbers that `values` become when each is rounded once to `dtype`, found by comparing neighbours:
 * slow, and independent of how the backend rounds.
 */
export function roundOnce(values: ArrayLike<number>, dtype: FloatDType): Float32Array {
  return Float32Array.from(values, (value) => {
    if (dtype === "f32") return value;
    return dtype === "f16"
      ? nearest(value, float32ToF16, f16ToFloat32)
      : nearest(value, float32ToBf16, bf16ToFloat32);
  });
}

function nearest(value: number, encode: (value: number) => number, decode: (bits: number) => number): number {
  const start = encode(value);
  if (!Number.isFinite(decode(start))) return decode(start);
  let best = start;
  // One bit up or down is the next number away from or towards zero.
  for (const bits of [start - 1, start + 1]) {
    if (((bits ^ start) & 0x8000) !== 0 || !Number.isFinite(decode(bits))) continue;
    const gain = Math.abs(decode(best) - value) - Math.abs(decode(bits) - value);
    if (gain > 0 || (gain === 0 && (bits & 1) === 0)) best = bits;
  }
  return decode(best);
}
