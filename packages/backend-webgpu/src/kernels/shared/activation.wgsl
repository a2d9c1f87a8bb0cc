// act and its derivative. No intermediate overflows for a finite argument: a compiler may assume that infinity
// does not occur. `kind`: 0 silu, 1 gelu, 2 gelu_tanh, 3 relu; a parameter, since four times as many kernels to
// compile would cost more than a branch that all threads take alike.

fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// The normal distribution function through erf of Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7. The tail is
// computed, not its complement, so that nothing cancels for negative x.
fn normal_distribution(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 12.0);
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  let tail = 0.5 * series * exp(-z * z);
  return select(tail, 1.0 - tail, x >= 0.0);
}

// 2 sqrt(2 / pi) (x + 0.044715 x^3); beyond 30 its sigmoid is 0 or 1.
fn tanh_argument(x: f32) -> f32 {
  let c = clamp(x, -30.0, 30.0);
  return 1.5957691 * (c + 0.044715 * c * c * c);
}

fn act(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: { return x * normal_distribution(x); }
    case 2u: { return x * sigmoid(tanh_argument(x)); }
    case 3u: { return max(x, 0.0); }
    default: { return x * sigmoid(x); }
  }
}

fn act_slope(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: {
      let c = clamp(x, -20.0, 20.0);
      return normal_distribution(x) + c * exp(-0.5 * c * c) * 0.39894228;
    }
    case 2u: {
      let c = clamp(x, -30.0, 30.0);
      let s = sigmoid(tanh_argument(x));
      return s + c * s * (1.0 - s) * 1.5957691 * (1.0 + 0.134145 * c * c);
    }
    case 3u: { return select(0.0, 1.0, x > 0.0); }
    default: {
      let s = sigmoid(x);
      return s + clamp(x, -200.0, 200.0) * s * (1.0 - s);
    }
  }
}
