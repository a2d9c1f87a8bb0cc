/**
 * Conversions between numbers and the two 16-bit floats, exact in every case: round to nearest, ties to
 * even; infinities, subnormals and signed zeros kept; a NaN stays a (quiet) NaN. Node 20 has no
 * Float16Array, so this is done on the bits.
 */
const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/**
 * The bits of `value` as f32, rounded to odd where it is no f32: a number just beside a tie of the
 * 16-bit grid stays beside it, so that rounding again gives what rounding once would.
 */
function oddBits(value: number): number {
  const nearest = Math.fround(value);
  f32[0] = value;
  if (nearest === value || Number.isNaN(value)) return u32[0];
  return (Math.abs(nearest) > Math.abs(value) ? u32[0] - 1 : u32[0]) | 1;
}

/** Bits of the f16 (IEEE 754 binary16) nearest to `value`, an f32 or any other number. */
export function float32ToF16(value: number): number {
  const bits = oddBits(value);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
  // 65520 = 0x477ff000 is halfway between the largest f16 and 2^16: it and all above become infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    const rebased = magnitude - 0x38000000;
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  // At or below 2^-25 everything rounds to zero (2^-25 itself is a tie with an even zero).
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const kept = mantissa >>> shift;
  const half = 1 << (shift - 1);
  const rest = mantissa & ((1 << shift) - 1);
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0));
}

/** The value of f16 bits, exact. */
export function f16ToFloat32(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) {
    const magnitude = mantissa * 2 ** -24;
    return sign === 0 ? magnitude : -magnitude;
  }
  u32[0] = sign | (exponent === 0x1f ? 0x7f800000 : (exponent + 112) << 23) | (mantissa << 13);
  return f32[0];
}

/** Bits of the bf16 (the upper half of an f32) nearest to `value`, an f32 or any other number. */
export function float32ToBf16(value: number): number {
  const bits = oddBits(value) >>> 0;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** The value of bf16 bits, exact. */
export function bf16ToFloat32(bits: number): number {
  u32[0] = bits << 16;
  return f32[0];
}
