// uses: grid activation

struct Params {
  tokens: u32,
  hidden_size: u32,
  intermediate_size: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> gate: array<u32>;
@group(0) @binding(3) var<storage, read> up: array<u32>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

const LANES = 16u;

var<workgroup> tree: array<vec4<f32>, 128>;
var<workgroup> partial: array<vec4<f32>, 16>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = workgroup_index(group, groups);
  let slices = (params.intermediate_size + 3u) / 4u;
  let lane = thread % LANES;
  let first_token = (index / slices) * 4u;
  let i = (index % slices) * 4u + thread / LANES;
  let present = i < params.intermediate_size;
  let tokens = min(4u, max(params.tokens, first_token) - first_token);
  var gated = vec4<f32>();
  var linear = vec4<f32>();
  for (var h = lane * 4u; present && h < params.hidden_size; h += 4u * LANES) {
    let valid = params.hidden_size - h;
    let gates = load4_gate(i * params.hidden_size + h, valid);
    let ups = load4_up(i * params.hidden_size + h, valid);
    let x0 = load4_x(first_token * params.hidden_size + h, valid);
    gated.x += dot(x0, gates);
    linear.x += dot(x0, ups);
    if (tokens > 1u) {
      let x1 = load4_x((first_token + 1u) * params.hidden_size + h, valid);
      let x2 = load4_x((first_token + min(2u, tokens - 1u)) * params.hidden_size + h, valid);
      let x3 = load4_x((first_token + tokens - 1u) * params.hidden_size + h, valid);
      gated += vec4<f32>(0.0, dot(x1, gates), dot(x2, gates), dot(x3, gates));
      linear += vec4<f32>(0.0, dot(x1, ups), dot(x2, ups), dot(x3, ups));
    }
  }
  tree[thread] = gated;
  tree[64u + thread] = linear;
  workgroupBarrier();
  if (thread < 16u) {
    var sum = vec4<f32>();
    for (var n = 0u; n < 8u; n++) {
      sum += tree[thread * 8u + n];
    }
    partial[thread] = sum;
  }
  workgroupBarrier();
  if (lane < tokens && present) {
    let own = (thread / LANES) * 2u;
    let a = partial[own][lane] + partial[own + 1u][lane];
    let b = partial[8u + own][lane] + partial[9u + own][lane];
    let at = (first_token + lane) * params.intermediate_size + i;
    hidden[at] = act(params.activation, a) * b;
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}


fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn normal_distribution(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 12.0);
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  let tail = 0.5 * series * exp(-z * z);
  return select(tail, 1.0 - tail, x >= 0.0);
}

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
fn load_gate(i: u32) -> f32 {
  return decode_f16(gate[i >> 1u])[i & 1u];
}
fn load4_gate(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_gate(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_gate(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_gate(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_gate(i + 3u);
  }
  return values;
}
fn load_up(i: u32) -> f32 {
  return decode_f16(up[i >> 1u])[i & 1u];
}
fn load4_up(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_up(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_up(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_up(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_up(i + 3u);
  }
  return values;
}