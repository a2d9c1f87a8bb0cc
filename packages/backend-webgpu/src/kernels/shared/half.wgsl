// 16-bit floats in the halves of a word, the element of even index in the lower one. Encoding rounds to nearest,
// ties to even, on the bits: WGSL leaves the rounding of pack2x16float open, and a compiler may assume that NaN
// and infinity do not occur.
fn decode_f16(word: u32) -> vec2<f32> {
  return unpack2x16float(word);
}

fn decode_bf16(word: u32) -> vec2<f32> {
  return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

fn encode_f16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u | ((magnitude >> 13u) & 0x1ffu);
  }
  // 65520, halfway between the largest f16 and 2^16: it and all above become infinity.
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude >= 0x38800000u) {
    let rebased = magnitude - 0x38000000u;
    return sign | ((rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u);
  }
  // At or below 2^-25 everything rounds to zero: 2^-25 is a tie with an even zero.
  if (magnitude <= 0x33000000u) {
    return sign;
  }
  let shift = 126u - (magnitude >> 23u);
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  let kept = mantissa >> shift;
  let half = 1u << (shift - 1u);
  let rest = mantissa & ((1u << shift) - 1u);
  return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}

fn encode_bf16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return (bits >> 16u) | 0x40u;
  }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
