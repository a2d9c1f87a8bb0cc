// Logits as unsigned integers. Selection must be the same on every device, so it never asks a float whether it is
// infinite or NaN, and never computes one that is: a compiler may assume that neither occurs.

// Grows with the logit: infinities clamped to the largest finite numbers, NaN as the lowest, -0 as 0.
fn order_key(bits: u32) -> u32 {
  var magnitude = bits & 0x7fffffffu;
  var negative = (bits >> 31u) == 1u;
  if (magnitude > 0x7f800000u) {
    negative = true;
  }
  magnitude = min(magnitude, 0x7f7fffffu);
  return select(magnitude | 0x80000000u, 0x7fffffffu - magnitude, negative && magnitude != 0u);
}

// The logit that a key stands for.
fn key_value(key: u32) -> f32 {
  return bitcast<f32>(select((0x7fffffffu - key) | 0x80000000u, key & 0x7fffffffu, key >= 0x80000000u));
}

const OVERFLOWN = 0x7f800000u;

// The bits of best - value >= 0. Halves do not overflow, and from 2^127 on the whole is infinite.
fn distance_bits(best: f32, value: f32) -> u32 {
  if (0.5 * best - 0.5 * value >= 0x1p127f) {
    return OVERFLOWN;
  }
  return bitcast<u32>(best - value);
}

// The bits of x + y for the bits of x, y >= 0: the smaller, the better the pair.
fn sum_bits(x: u32, y: u32) -> u32 {
  if (x == OVERFLOWN || y == OVERFLOWN) {
    return OVERFLOWN;
  }
  let a = bitcast<f32>(x);
  let b = bitcast<f32>(y);
  if (0.5 * a + 0.5 * b >= 0x1p127f) {
    return OVERFLOWN;
  }
  return bitcast<u32>(a + b);
}

// A distance as a number that exp and sums of a few can take: from 1e30 on, exp of its negative is 0 anyway.
fn bounded_distance(bits: u32) -> f32 {
  return min(bitcast<f32>(min(bits, 0x7f7fffffu)), 1e30);
}

fn exp_negative(distance: f32) -> f32 {
  return exp(-min(distance, 200.0));
}

const NAN_BITS = 0x7fc00000u;
