// act and act' of the experts and of the shared MLP, in f64 inside:
//
//     silu       x s(x)                                with s the logistic function 1 / (1 + e^-x)
//     gelu       x erfc(-x / sqrt 2) / 2
//     gelu_tanh  x (1 + tanh z) / 2 = x s(2 z)         z = sqrt(2 / pi) (x + 0.044715 x^3)
//     relu       max(x, 0)                             derivative 0 at 0
//
// Written with s and erfc rather than tanh and erf, nothing cancels for negative x. Whole rows at a time: the twenty
// constants of an exponential are put into registers once, not for every four values.

import { erfc64, exp64, high64, join32, low64 } from "./math";

/** Activation numbers as the host passes them. */
const SILU = 0;
const GELU = 1;
const GELU_TANH = 2;

@inline
function logistic(x: v128): v128 {
  return f64x2.div(f64x2.splat(1), f64x2.add(f64x2.splat(1), exp64(f64x2.neg(x))));
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
  if (kind == SILU) return f64x2.mul(x, logistic(x));
  if (kind == GELU) return f64x2.mul(x, normalDistribution(x));
  return f64x2.mul(x, logistic(tanhArgument(x)));
}

@inline
function slope64(kind: i32, x: v128): v128 {
  const one = f64x2.splat(1);
  if (kind == SILU) {
    const s = logistic(x);
    return f64x2.add(s, f64x2.mul(f64x2.mul(x, s), f64x2.sub(one, s)));
  }
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
    v128.store(y + at, join32(value64(kind, low64(v)), value64(kind, high64(v))));
  }
}

@inline
function slopesOf(kind: i32, count: usize, x: usize, y: usize): void {
  for (let at: usize = 0; at < count * 4; at += 16) {
    const v = v128.load(x + at);
    v128.store(y + at, join32(slope64(kind, low64(v)), slope64(kind, high64(v))));
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
