// uses: grid

struct Params {
  tokens: u32,
  features: u32,
  inverse_tokens: f32,
  unbiased: f32,
  momentum: f32,
  keep: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> exact_mean: array<f32>;

var<workgroup> tree: array<vec2<f32>, 256>;

fn sum_of_feature(value: vec2<f32>, thread: u32) -> vec2<f32> {
  workgroupBarrier();
  tree[thread] = value;
  workgroupBarrier();
  for (var half = 8u; half > 0u; half /= 2u) {
    if (thread / 16u < half) {
      tree[thread] += tree[thread + 16u * half];
    }
    workgroupBarrier();
  }
  return tree[thread % 16u];
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let feature = workgroup_index(group, groups) * 16u + thread % 16u;
  let lane = thread / 16u;
  let present = feature < params.features;
  var sum = 0.0;
  if (present) {
    for (var t = lane; t < params.tokens; t += 16u) {
      sum += load_x(t * params.features + feature);
    }
  }
  let centre = sum_of_feature(vec2<f32>(sum, 0.0), thread).x * params.inverse_tokens;
  var moments = vec2<f32>();
  if (present) {
    for (var t = lane; t < params.tokens; t += 16u) {
      let difference = load_x(t * params.features + feature) - centre;
      moments += vec2<f32>(difference, difference * difference);
    }
  }
  moments = sum_of_feature(moments, thread) * params.inverse_tokens;
  if (present && lane == 0u) {
    let left = select(0.0, moments.x, abs(centre) <= 3.4e38);
    let rounded = centre + left;
    let spread = max(moments.y - left * left, 0.0);
    mean[feature] = rounded;
    variance[feature] = spread;
    exact_mean[feature] = centre;
    exact_mean[params.features + feature] = left;
    running_mean[feature] = params.keep * running_mean[feature] + params.momentum * rounded;
    let unbiased = spread * params.unbiased;
    running_variance[feature] = params.keep * running_variance[feature] + params.momentum * unbiased;
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

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
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude >= 0x38800000u) {
    let rebased = magnitude - 0x38000000u;
    return sign | ((rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u);
  }
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

fn load_x(i: u32) -> f32 {
  return decode_f16(x[i >> 1u])[i & 1u];
}
fn load4_x(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_x(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_x(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_x(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_x(i + 3u);
  }
  return values;
}