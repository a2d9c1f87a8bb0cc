import { bf16ToFloat32, f16ToFloat32, float32ToBf16, float32ToF16 } from "@flash-moe/core";
import { describe, expect, it } from "vitest";

/** A 16-bit format by its parameters; everything below follows from these. */
interface Format {
  readonly name: string;
  readonly exponentBits: number;
  readonly fractionBits: number;
  readonly encode: (value: number) => number;
  readonly decode: (bits: number) => number;
}

const formats: readonly Format[] = [
  { name: "f16", exponentBits: 5, fractionBits: 10, encode: float32ToF16, decode: f16ToFloat32 },
  { name: "bf16", exponentBits: 8, fractionBits: 7, encode: float32ToBf16, decode: bf16ToFloat32 },
];

/** The value of `bits` from the definition of the format, in float64. */
function decodeByDefinition(bits: number, { exponentBits, fractionBits }: Format): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits & 0x7fff) >> fractionBits;
  const fraction = bits & (2 ** fractionBits - 1);
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias - fractionBits);
  return sign * (2 ** fractionBits + fraction) * 2 ** (exponent - bias - fractionBits);
}

/** The nearest bits, ties to even, by float64 alone: steps of the format are powers of two, so exact. */
function nearest(value: number, format: Format): number {
  const { exponentBits, fractionBits } = format;
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  const infinity = (2 ** exponentBits - 1) << fractionBits;
  if (magnitude === Infinity) return sign | infinity;
  f64[0] = magnitude;
  const exponent = Math.min(bias, Math.max(1 - bias, Number(u64[0] >> 52n) - 1023));
  const step = 2 ** (exponent - fractionBits);
  // Exact: dividing a float64 of this range by a power of two; the quotient is below 2^(fractionBits + 2)
  // unless the value overflows.
  const quotient = magnitude / step;
  if (quotient >= 2 ** (fractionBits + 2)) return sign | infinity;
  const floor = Math.floor(quotient);
  const rest = quotient - floor;
  const steps = floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
  // A carry out of the fraction moves into the exponent by itself, up to infinity.
  return sign | Math.min(infinity, steps + ((exponent + bias - 1) << fractionBits));
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);
const f64 = new Float64Array(1);
const u64 = new BigUint64Array(f64.buffer);

function fromBits(bits: number): number {
  u32[0] = bits;
  return f32[0];
}

/** Same seed, same patterns. */
function patterns(count: number): Uint32Array {
  const out = new Uint32Array(count);
  let state = 0x9e3779b9;
  for (let i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    out[i] = state;
  }
  return out;
}

describe.each(formats)("$name", (format) => {
  const { encode, decode, fractionBits, exponentBits } = format;
  const infinity = (2 ** exponentBits - 1) << fractionBits;

  it("decodes all 65,536 bit patterns to their values, and encodes these back", () => {
    let wrong = 0;
    for (let bits = 0; bits < 65536; bits++) {
      const value = decode(bits);
      if (!Object.is(value, decodeByDefinition(bits, format))) wrong++;
      const notANumber = (bits & 0x7fff) > infinity;
      const back = encode(value);
      if (notANumber ? (back & 0x7fff) <= infinity : back !== bits) wrong++;
    }
    expect(wrong).toBe(0);
  });

  it("encodes a million f32 bit patterns to the nearest value, ties to even", () => {
    const wrong: string[] = [];
    for (const bits of patterns(1_000_000)) {
      const value = fromBits(bits);
      const got = encode(value);
      const right = Number.isNaN(value) ? (got & 0x7fff) > infinity : got === nearest(value, format);
      if (!right) wrong.push(`${bits.toString(16)} -> ${got.toString(16)}`);
    }
    expect(wrong).toEqual([]);
  });

  it("decides at every tie between neighbours, and one f32 and one f64 to either side of it", () => {
    const wrong: string[] = [];
    for (let bits = 0; bits < infinity; bits++) {
      const low = decodeByDefinition(bits, format);
      const tie =
        bits + 1 === infinity
          ? low + (low - decodeByDefinition(bits - 1, format)) / 2
          : (low + decodeByDefinition(bits + 1, format)) / 2;
      f32[0] = tie;
      const tieBits = u32[0];
      f64[0] = tie;
      const wide = u64[0];
      const values = [tie, fromBits(tieBits - 1), fromBits(tieBits + 1)];
      for (const neighbour of [wide - 1n, wide + 1n]) {
        u64[0] = neighbour;
        values.push(f64[0]);
      }
      for (const value of values) {
        for (const signed of [value, -value]) {
          if (encode(signed) !== nearest(signed, format)) wrong.push(String(signed));
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it("keeps NaN a quiet NaN, whatever its payload, and infinities and signed zeros as they are", () => {
    const quiet = infinity | (1 << (fractionBits - 1));
    for (const bits of [0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffc12345, 0x7f801fff]) {
      const encoded = encode(fromBits(bits));
      expect(encoded & quiet).toBe(quiet);
    }
    expect(encode(Infinity)).toBe(infinity);
    expect(encode(-Infinity)).toBe(infinity | 0x8000);
    expect(encode(0)).toBe(0);
    expect(encode(-0)).toBe(0x8000);
    expect(Object.is(decode(0x8000), -0)).toBe(true);
  });
});

describe("values that are easy to get wrong", () => {
  it.each([
    [65504, 0x7bff],
    [65519.99609375, 0x7bff],
    [65519.9999999, 0x7bff],
    [65520, 0x7c00],
    [-65520, 0xfc00],
    [65536, 0x7c00],
    [2 ** -14, 0x0400],
    [2 ** -14 - 2 ** -25, 0x0400],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [2 ** -25 + 2 ** -48, 0x0001],
    [1.5 * 2 ** -24, 0x0002],
    [-(2 ** -26), 0x8000],
    [1e-300, 0x0000],
    [Number.MAX_VALUE, 0x7c00],
  ])("f16 of %d is %i", (value, bits) => {
    expect(float32ToF16(value)).toBe(bits);
  });

  it.each([
    [2 ** 128 - 2 ** 120, 0x7f7f],
    [2 ** 128 - 2 ** 119 - 2 ** 80, 0x7f7f],
    [2 ** 128 - 2 ** 119, 0x7f80],
    [2 ** 128 - 2 ** 104, 0x7f80],
    [Number.MAX_VALUE, 0x7f80],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [2 ** -133, 0x0001],
    [2 ** -134, 0x0000],
    [-1e-300, 0x8000],
  ])("bf16 of %d is %i", (value, bits) => {
    expect(float32ToBf16(value)).toBe(bits);
  });

  it("a number beside a tie is rounded once, not first to f32 and then to 16 bits", () => {
    expect(float32ToF16(1 + 2 ** -11 + 2 ** -40)).toBe(0x3c01);
    expect(float32ToF16(1 + 3 * 2 ** -11 - 2 ** -40)).toBe(0x3c01);
    expect(float32ToBf16(1 + 2 ** -8 + 2 ** -40)).toBe(0x3f81);
    expect(float32ToBf16(-(1 + 3 * 2 ** -8 - 2 ** -40))).toBe(0xbf81);
  });
});
