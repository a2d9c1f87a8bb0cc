// exp, log and erfc. They are computed in f64 (two lanes a vector) and only then rounded to f32, so that what
// comes out is the f32 nearest to the true value in almost every case, the same on every engine.

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

@inline
function step(sum: v128, x: v128, coefficient: f64): v128 {
  return f64x2.add(f64x2.mul(sum, x), f64x2.splat(coefficient));
}

/**
 * e^x for two f64, within 1e-11 relative; 0 below -708, infinite above 709, NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor series.
 */
@inline
export function exp64(x: v128): v128 {
  // pmin and pmax are one instruction each, and hand on a NaN that comes first.
  const bounded = f64x2.pmax(f64x2.pmin(x, f64x2.splat(709)), f64x2.splat(-708));
  // Added to this number (1.5 * 2^52), an f64 is rounded to an integer, which stands in its lowest bits.
  const shift = f64x2.splat(6755399441055744.0);
  const shifted = f64x2.add(f64x2.mul(bounded, f64x2.splat(1.4426950408889634)), shift);
  const n = f64x2.sub(shifted, shift);
  const r = f64x2.sub(bounded, f64x2.mul(n, f64x2.splat(0.6931471805599453)));
  let sum = f64x2.splat(1.0 / 362880);
  sum = step(sum, r, 1.0 / 40320);
  sum = step(sum, r, 1.0 / 5040);
  sum = step(sum, r, 1.0 / 720);
  sum = step(sum, r, 1.0 / 120);
  sum = step(sum, r, 1.0 / 24);
  sum = step(sum, r, 1.0 / 6);
  sum = step(sum, r, 0.5);
  sum = step(sum, r, 1);
  sum = step(sum, r, 1);
  const power = i64x2.shl(i64x2.add(shifted, i64x2.splat(1023)), 52); // 2^n
  const result = f64x2.mul(sum, power);
  const small = v128.andnot(result, f64x2.lt(x, f64x2.splat(-708)));
  return v128.bitselect(f64x2.splat(infinity), small, f64x2.gt(x, f64x2.splat(709)));
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
  let sum = f64x2.splat(-3.4341687006938094e-6);
  sum = step(sum, u, -6.5519720954825574e-6);
  sum = step(sum, u, 3.291238814663188e-5);
  sum = step(sum, u, 8.832781015338085e-5);
  sum = step(sum, u, -1.8087385345133314e-4);
  sum = step(sum, u, -1.009141485618798e-3);
  sum = step(sum, u, -4.047805462010773e-4);
  sum = step(sum, u, 8.941790036209906e-3);
  sum = step(sum, u, 0.03984269168297738);
  sum = step(sum, u, 0.10348916310411449);
  sum = step(sum, u, 0.19674277926730319);
  sum = step(sum, u, 0.29446481506226485);
  sum = step(sum, u, 0.3580023024276636);
  const tail = f64x2.mul(f64x2.mul(t, sum), exp64(f64x2.neg(f64x2.mul(z, z))));
  return v128.bitselect(f64x2.sub(f64x2.splat(2), tail), tail, f64x2.lt(x, f64x2.splat(0)));
}
