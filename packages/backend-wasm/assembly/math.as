// exp, log and erfc. They are computed in f64 (two lanes a vector) and only then rounded to f32, so that what
// comes out is the f32 nearest to the true value in almost every case. Two exponentials are in f32, within a few
// units in the last place, where most of them are needed: for silu, and for the sums of the router.

import { madd } from "./simd";

const infinity: f64 = Infinity;

/** Low and high halves of four f32 as two vectors of f64. */
@inline
export function low64(v: v128): v128 {
  return f64x2.promote_low_f32x4(v);
}

@inline
export function high64(v: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<i64>(v, v, 1, 1));
}

/** Four f32 from two vectors of f64. */
@inline
export function join32(low: v128, high: v128): v128 {
  return v128.shuffle<i64>(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 2);
}

// Constants are read from memory, where the module puts them: V8 of 2024 makes a constant in an instruction anew at every
// use, in three instructions.
const exponential = memory.data<f64>([
  710,
  -709,
  1.4426950408889634,
  // 1.5 * 2^52: added to it, an f64 is rounded to an integer, which stands in its lowest bits. n + 1023 is an exponent.
  6755399441055744.0 + 1023.0,
  1.3359805043672711e-5,
  1.5461367722176695e-4,
  1.3341951116775809e-3,
  9.61805691909896e-3,
  0.05550400375180382,
  0.24022650920784555,
  0.6931471838169052,
  1,
]);
const single = memory.data<f32>([
  1.4426950408889634,
  // 1.5 * 2^23, and 64 more than the bias of an exponent.
  12582912.0 + 127.0 + 64.0,
  // -ln 2 in two parts; the first one times an integer below 2^15 is exact.
  -0.693359375,
  0.00021219444005469057,
  0.001381459878757596,
  0.008368716575205326,
  0.04166838899254799,
  0.1666652113199234,
  0.4999999403953552,
  1,
  -127,
  5.421010862427522e-20, // 2^-64
  -0.0,
]);
const power = memory.data<f32>([
  1.4426950408889634,
  -126,
  12582912.0 + 127.0, // 1.5 * 2^23, and the bias of an exponent
  0.0013264658628031611,
  0.00967156607657671,
  0.055507343262434006,
  0.24022240936756134,
  0.6931470036506653,
  1,
]);
const complementary = memory.data<f64>([
  -3.4341687006938094e-6,
  -6.5519720954825574e-6,
  3.291238814663188e-5,
  8.832781015338085e-5,
  -1.8087385345133314e-4,
  -1.009141485618798e-3,
  -4.047805462010773e-4,
  8.941790036209906e-3,
  0.03984269168297738,
  0.10348916310411449,
  0.19674277926730319,
  0.29446481506226485,
  0.3580023024276636,
]);

@inline
function constant(table: usize, index: usize): v128 {
  return v128.load64_splat(table + index * 8);
}

@inline
function constant32(table: usize, index: usize): v128 {
  return v128.load32_splat(table + index * 4);
}

/** a * b + c. */
@inline
function madd64(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f64x2.relaxed_madd(a, b, c);
  return f64x2.add(f64x2.mul(a, b), c);
}

/** sum * x + the constant at `index`. */
@inline
function step(sum: v128, x: v128, table: usize, index: usize): v128 {
  return madd64(sum, x, constant(table, index));
}

/**
 * e^x for two f64, within 3e-10 relative; 0 below -709, infinite above 709.5, NaN for NaN, 1 for 0.
 * x log2 e = n + f with |f| <= 1/2, and 2^f by the polynomial of degree 7 with the smallest relative error that is 1 at 0.
 */
@inline
export function exp64(x: v128): v128 {
  // pmin and pmax are one instruction each, and hand on a NaN that comes first. Between these bounds 2^n comes out as 0
  // and infinity by itself.
  const bounded = f64x2.pmax(f64x2.pmin(x, constant(exponential, 0)), constant(exponential, 1));
  const scaled = f64x2.mul(bounded, constant(exponential, 2));
  const shift = constant(exponential, 3);
  const shifted = f64x2.add(scaled, shift);
  const f = f64x2.sub(scaled, f64x2.sub(shifted, shift));
  // In pairs (Estrin's scheme): three operations wait for one another, and not seven.
  const f2 = f64x2.mul(f, f);
  const upper = madd64(step(constant(exponential, 4), f, exponential, 5), f2, step(constant(exponential, 6), f, exponential, 7));
  const lower = madd64(step(constant(exponential, 8), f, exponential, 9), f2, step(constant(exponential, 10), f, exponential, 11));
  const sum = madd64(upper, f64x2.mul(f2, f2), lower);
  return f64x2.mul(sum, i64x2.shl(shifted, 52));
}

/** 1 in four f32. */
@inline
export function one32(): v128 {
  return constant32(single, 9);
}

/**
 * 2^64 e^-|x| for four f32, within 1e-7 relative down to e^-127, 0 beyond and for NaN. The scale keeps what is nearly 0
 * exact until `unscaled`. -|x| = n ln 2 + f with |f| <= ln 2 / 2, and e^f = 1 + f + f^2 q(f), q of degree 4 with the
 * smallest relative error.
 */
@inline
export function scaledTail32(x: v128): v128 {
  const y = v128.or(x, constant32(single, 12));
  const shift = constant32(single, 1);
  const shifted = madd(y, constant32(single, 0), shift);
  const n = f32x4.sub(shifted, shift);
  const f = madd(n, constant32(single, 3), madd(n, constant32(single, 2), y));
  const f2 = f32x4.mul(f, f);
  const upper = madd(constant32(single, 4), f2, madd(constant32(single, 5), f, constant32(single, 6)));
  const q = madd(upper, f2, madd(constant32(single, 7), f, constant32(single, 8)));
  const e = f32x4.add(madd(f2, q, f), constant32(single, 9));
  return v128.and(f32x4.mul(e, i32x4.shl(shifted, 23)), f32x4.ge(y, constant32(single, 10)));
}

/** 2^-64 v. */
@inline
export function unscaled(v: v128): v128 {
  return f32x4.mul(v, constant32(single, 11));
}

/**
 * e^x for four f32 up to 0, NaN for NaN, within (1 + |x|) 1e-7 relative; below e^-87 as much as there. For terms of a sum,
 * where an error that grows as terms vanish does not show: x log2 e = n + f with |f| <= 1/2, and 2^f = 1 + f q(f), q of
 * degree 4 with the smallest relative error.
 */
@inline
export function expTerm32(x: v128): v128 {
  const scaled = f32x4.pmax(f32x4.mul(x, constant32(power, 0)), constant32(power, 1));
  const shift = constant32(power, 2);
  const shifted = f32x4.add(scaled, shift);
  const f = f32x4.add(scaled, f32x4.sub(shift, shifted));
  const f2 = f32x4.mul(f, f);
  const upper = madd(constant32(power, 3), f, constant32(power, 4));
  const middle = madd(constant32(power, 5), f, constant32(power, 6));
  const sum = madd(madd(upper, f2, middle), f2, madd(constant32(power, 7), f, constant32(power, 8)));
  return f32x4.mul(sum, i32x4.shl(shifted, 23));
}

export function exp1(x: f64): f64 {
  return f64x2.extract_lane(exp64(f64x2.splat(x)), 0);
}

/**
 * ln x for a normal x > 0, within 1e-13; infinity and NaN as they are.
 * x = 2^n m with m in [sqrt(1/2), sqrt 2), and ln m = 2 artanh((m - 1) / (m + 1)) by its series.
 */
export function log1(x: f64): f64 {
  if (!(x < infinity)) return x;
  const bits = reinterpret<i64>(x);
  let n = <f64>((bits >> 52) - 1023);
  let m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    n += 1;
  }
  const s = (m - 1) / (m + 1);
  const q = s * s;
  let sum: f64 = 1.0 / 17;
  sum = sum * q + 1.0 / 15;
  sum = sum * q + 1.0 / 13;
  sum = sum * q + 1.0 / 11;
  sum = sum * q + 1.0 / 9;
  sum = sum * q + 1.0 / 7;
  sum = sum * q + 1.0 / 5;
  sum = sum * q + 1.0 / 3;
  sum = sum * q + 1;
  return n * 0.6931471805599453 + 2 * s * sum;
}

/**
 * erfc(x) = 1 - erf(x) for two f64, within 1e-9 relative. With z = |x| and t = 3 / (3 + z),
 * erfc(z) = t e^(-z^2) P(2 t - 1), where P is a polynomial of degree 12: the interpolation of
 * erfc(z) e^(z^2) / t in Chebyshev's points. For negative x, erfc(x) = 2 - erfc(-x).
 */
export function erfc64(x: v128): v128 {
  const z = f64x2.abs(x);
  const t = f64x2.div(f64x2.splat(3), f64x2.add(z, f64x2.splat(3)));
  const u = f64x2.sub(f64x2.add(t, t), f64x2.splat(1));
  let sum = constant(complementary, 0);
  sum = step(sum, u, complementary, 1);
  sum = step(sum, u, complementary, 2);
  sum = step(sum, u, complementary, 3);
  sum = step(sum, u, complementary, 4);
  sum = step(sum, u, complementary, 5);
  sum = step(sum, u, complementary, 6);
  sum = step(sum, u, complementary, 7);
  sum = step(sum, u, complementary, 8);
  sum = step(sum, u, complementary, 9);
  sum = step(sum, u, complementary, 10);
  sum = step(sum, u, complementary, 11);
  sum = step(sum, u, complementary, 12);
  const tail = f64x2.mul(f64x2.mul(t, sum), exp64(f64x2.neg(f64x2.mul(z, z))));
  return v128.bitselect(f64x2.sub(f64x2.splat(2), tail), tail, f64x2.lt(x, f64x2.splat(0)));
}
