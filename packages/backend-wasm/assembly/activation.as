// act and act' of the experts and of the shared MLP, in f64 inside, silu in f32:
//
//     silu       x s(x)                                with s the logistic function 1 / (1 + e^-x)
//     gelu       x erfc(-x / sqrt 2) / 2
//     gelu_tanh  x (1 + tanh z) / 2 = x s(2 z)         z = sqrt(2 / pi) (x + 0.044715 x^3)
//     relu       max(x, 0)                             derivative 0 at 0
//
// Written with s and erfc rather than tanh and erf, nothing cancels for negative x. Whole rows at a time: the twenty
// constants of an exponential are put into registers once, not for every four values.

import { erfc64, exp64, high64, join32, low64, one32, scaledTail32, unscaled } from "./math";

/** Activation numbers as the host passes them. */
const SILU = 0;
const GELU = 1;
const GELU_TANH = 2;

@inline
function logistic(x: v128): v128 {
  return f64x2.div(f64x2.splat(1), f64x2.add(f64x2.splat(1), exp64(f64x2.neg(x))));
}

/** With t = e^-|x|: x / (1 + t), and x t / (1 + t) for negative x. */
@inline
function silu(x: v128): v128 {
  const tail = scaledTail32(x);
  const isNegative = f32x4.lt(x, f32x4.splat(0));
  const numerator = v128.bitselect(unscaled(f32x4.mul(x, tail)), x, isNegative);
  return f32x4.div(numerator, f32x4.add(one32(), unscaled(tail)));
}

/** s(x) (1 + x s(-x)). */
@inline
function siluSlope(x: v128): v128 {
  const t = unscaled(scaledTail32(x));
  const larger = f32x4.div(one32(), f32x4.add(one32(), t));
  const less = f32x4.mul(t, larger);
  const isNegative = f32x4.lt(x, f32x4.splat(0));
  const s = v128.bitselect(less, larger, isNegative);
  const opposite = v128.bitselect(larger, less, isNegative);
  return f32x4.mul(s, f32x4.add(one32(), f32x4.mul(x, opposite)));
}

/** 2 z of gelu_tanh. */
@inline
function tanhArgument(x: v128): v128 {
  const cubic = f64x2.mul(f64x2.mul(f64x2.splat(0.044715), x), f64x2.mul(x, x));
  return f64x2.mul(f64x2.splat(1.5957691216057308), f64x2.add(x, cubic));
}

@inline
function normalDistribution(x: v128): v128 {
  return f64x2.mul(f64x2.splat(0.5), erfc64(f64x2.mul(x, f64x2.splat(-0.7071067811865476))));
}

@inline
function value64(kind: i32, x: v128): v128 {
  if (kind == GELU) return f64x2.mul(x, normalDistribution(x));
  return f64x2.mul(x, logistic(tanhArgument(x)));
}

@inline
function slope64(kind: i32, x: v128): v128 {
  const one = f64x2.splat(1);
  if (kind == GELU) {
    const density = exp64(f64x2.mul(f64x2.splat(-0.5), f64x2.mul(x, x)));
    const scaled = f64x2.mul(f64x2.mul(x, density), f64x2.splat(0.3989422804014327));
    return f64x2.add(normalDistribution(x), scaled);
  }
  const s = logistic(tanhArgument(x));
  const slope = f64x2.mul(s, f64x2.sub(one, s));
  const square = f64x2.mul(x, x);
  const inner = f64x2.mul(
    f64x2.splat(1.5957691216057308),
    f64x2.add(one, f64x2.mul(f64x2.splat(3 * 0.044715), square)),
  );
  // Saturated: the square may have overflowed, and 0 times infinity is not 0.
  const through = f64x2.mul(f64x2.mul(x, slope), inner);
  return f64x2.add(s, v128.andnot(through, f64x2.eq(slope, f64x2.splat(0))));
}

@inline
function valuesOf(kind: i32, count: usize, x: usize, y: usize): void {
  for (let at: usize = 0; at < count * 4; at += 16) {
    const v = v128.load(x + at);
    const value = kind == SILU ? silu(v) : join32(value64(kind, low64(v)), value64(kind, high64(v)));
    v128.store(y + at, value);
  }
}

@inline
function slopesOf(kind: i32, count: usize, x: usize, y: usize): void {
  for (let at: usize = 0; at < count * 4; at += 16) {
    const v = v128.load(x + at);
    const slope = kind == SILU ? siluSlope(v) : join32(slope64(kind, low64(v)), slope64(kind, high64(v)));
    v128.store(y + at, slope);
  }
}

/** y[n] = act(x[n]), f32 [count], in whole vectors: both have room for a multiple of four. y may be x. */
export function activateRow(kind: i32, count: usize, x: usize, y: usize): void {
  if (kind == SILU) valuesOf(SILU, count, x, y);
  else if (kind == GELU) valuesOf(GELU, count, x, y);
  else if (kind == GELU_TANH) valuesOf(GELU_TANH, count, x, y);
  else {
    const zero = f32x4.splat(0);
    for (let at: usize = 0; at < count * 4; at += 16) v128.store(y + at, f32x4.max(v128.load(x + at), zero));
  }
}

/** y[n] = act'(x[n]), as `activateRow`. */
export function activationSlopeRow(kind: i32, count: usize, x: usize, y: usize): void {
  if (kind == SILU) slopesOf(SILU, count, x, y);
  else if (kind == GELU) slopesOf(GELU, count, x, y);
  else if (kind == GELU_TANH) slopesOf(GELU_TANH, count, x, y);
  else {
    for (let at: usize = 0; at < count * 4; at += 16) {
      const off = f32x4.le(v128.load(x + at), f32x4.splat(0));
      v128.store(y + at, v128.andnot(f32x4.splat(1), off));
    }
  }
}
