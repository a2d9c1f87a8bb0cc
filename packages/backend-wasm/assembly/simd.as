// Vectors of four f32, and memory in the storage dtypes.
//
// Kernels over stored values are generic in the element type T: f32 for f32, u16 for f16, i16 for bf16 (the two
// 16-bit formats only need different types to be told apart). Arithmetic is always f32.

/** Dtype numbers as the host passes them. */
export const F32 = 0;
export const F16 = 1;
export const BF16 = 2;

/** a * b + c. One rounding where the engine has relaxed SIMD and the processor a fused multiply-add, else two. */
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** The sum of the four lanes, in a fixed order. */
@inline
export function sumLanes(v: v128): f32 {
  return (
    f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 2) + (f32x4.extract_lane(v, 1) + f32x4.extract_lane(v, 3))
  );
}

/** Four f32 from four stored values, each in the low half of a lane (the whole lane for f32). Exact. */
@inline
function decode<T>(raw: v128): v128 {
  if (isFloat<T>()) return raw;
  if (isSigned<T>()) return i32x4.shl(raw, 16); // bf16 is the upper half of an f32
  // f16: shifted into place, the exponent is short by 112; the product also makes subnormals normal, exactly.
  const magnitude = f32x4.mul(
    i32x4.shl(v128.and(raw, i32x4.splat(0x7fff)), 13),
    f32x4.splat(reinterpret<f32>(0x77800000)), // 2^112
  );
  // What comes out at 2^16 or above had the exponent of infinity and NaN.
  const special = v128.and(f32x4.ge(magnitude, f32x4.splat(65536)), i32x4.splat(0x7f800000));
  const sign = i32x4.shl(v128.and(raw, i32x4.splat(0x8000)), 16);
  return v128.or(v128.or(magnitude, special), sign);
}

/** The bits of four f32 rounded to T (nearest, ties to even), each in the low half of its lane. */
@inline
function encode<T>(v: v128): v128 {
  const sign = v128.and(i32x4.shr_u(v, 16), i32x4.splat(0x8000));
  const magnitude = v128.and(v, i32x4.splat(0x7fffffff));
  const isNaN = i32x4.gt_s(magnitude, i32x4.splat(0x7f800000));
  if (isSigned<T>()) {
    const odd = v128.and(i32x4.shr_u(magnitude, 16), i32x4.splat(1));
    const rounded = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, i32x4.splat(0x7fff)), odd), 16);
    const quiet = v128.or(i32x4.shr_u(magnitude, 16), i32x4.splat(0x40));
    return v128.or(v128.bitselect(quiet, rounded, isNaN), sign);
  }
  // Normal: rebias by 112 and round off 13 bits; 65520 and above carry into infinity by themselves.
  const capped = i32x4.min_s(magnitude, i32x4.splat(0x47800000));
  const odd = v128.and(i32x4.shr_u(capped, 13), i32x4.splat(1));
  const rebased = i32x4.add(i32x4.sub(capped, i32x4.splat(0x38000000)), i32x4.splat(0xfff));
  const normal = i32x4.shr_u(i32x4.add(rebased, odd), 13);
  // Subnormal: beside 0.5 the unit of an f32 is 2^-24, that of an f16 subnormal, so the addition rounds.
  const subnormal = i32x4.sub(f32x4.add(magnitude, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const isSmall = i32x4.lt_s(magnitude, i32x4.splat(0x38800000));
  const finite = v128.bitselect(subnormal, normal, isSmall);
  const quiet = v128.or(
    i32x4.splat(0x7e00),
    v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x1ff)),
  );
  return v128.or(v128.bitselect(quiet, finite, isNaN), sign);
}

/** Four stored values as f32. */
@inline
export function load4<T>(at: usize): v128 {
  if (isFloat<T>()) return v128.load(at);
  return decode<T>(v128.load16x4_u(at));
}

// The next three fours behind `at`: the distance stands in the instruction, where it has to be a constant, and V8 needs
// no register and no addition for a second address.

@inline
export function second4<T>(at: usize): v128 {
  if (isFloat<T>()) return v128.load(at, 16);
  return decode<T>(v128.load16x4_u(at, 8));
}

@inline
export function third4<T>(at: usize): v128 {
  if (isFloat<T>()) return v128.load(at, 32);
  return decode<T>(v128.load16x4_u(at, 16));
}

@inline
export function fourth4<T>(at: usize): v128 {
  if (isFloat<T>()) return v128.load(at, 48);
  return decode<T>(v128.load16x4_u(at, 24));
}

/** One stored value as f32. */
@inline
export function load1<T>(at: usize): f32 {
  if (isFloat<T>()) return load<f32>(at);
  return f32x4.extract_lane(decode<T>(i32x4.splat(load<u16>(at))), 0);
}

/** Stores four f32, rounded to T. */
@inline
export function store4<T>(at: usize, v: v128): void {
  if (isFloat<T>()) {
    v128.store(at, v);
  } else {
    const bits = encode<T>(v);
    v128.store64_lane(at, i16x8.narrow_i32x4_u(bits, bits), 0);
  }
}

/** Stores one f32, rounded to T. */
@inline
export function store1<T>(at: usize, value: f32): void {
  if (isFloat<T>()) store<f32>(at, value);
  else store<u16>(at, <u16>i32x4.extract_lane(encode<T>(f32x4.splat(value)), 0));
}
