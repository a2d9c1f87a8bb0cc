// uses: grid activation

struct Params {
  tokens: u32,
  hidden_size: u32,
  intermediate_size: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> gate: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> up: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

const TILE = 64u;
const DEPTH = 16u;
const STRIDE = 65u;

var<workgroup> tile_x: array<f32, 1040>;
var<workgroup> tile_gate: array<f32, 1040>;
var<workgroup> tile_up: array<f32, 1040>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tiles_across = (params.intermediate_size + TILE - 1u) / TILE;
  let index = workgroup_index(group, groups);
  let first_token = (index / tiles_across) * TILE;
  let first_unit = (index % tiles_across) * TILE;
  let row = (thread / 16u) * 4u;
  let column = (thread % 16u) * 4u;
  var gated: array<vec4<f32>, 4>;
  var linear: array<vec4<f32>, 4>;
  for (var first = 0u; first < params.hidden_size; first += DEPTH) {
    let line = thread / 4u;
    let h = (thread % 4u) * 4u;
    var values = vec4<f32>();
    var gates = vec4<f32>();
    var ups = vec4<f32>();
    if (first + h < params.hidden_size) {
      let valid = params.hidden_size - first - h;
      if (first_token + line < params.tokens) {
        values = load4_x((first_token + line) * params.hidden_size + first + h, valid);
      }
      if (first_unit + line < params.intermediate_size) {
        let at = (first_unit + line) * params.hidden_size + first + h;
        gates = load4_gate(at, valid);
        ups = load4_up(at, valid);
      }
    }
    let place = h * STRIDE + line;
    tile_x[place] = values.x;
    tile_x[place + STRIDE] = values.y;
    tile_x[place + 2u * STRIDE] = values.z;
    tile_x[place + 3u * STRIDE] = values.w;
    tile_gate[place] = gates.x;
    tile_gate[place + STRIDE] = gates.y;
    tile_gate[place + 2u * STRIDE] = gates.z;
    tile_gate[place + 3u * STRIDE] = gates.w;
    tile_up[place] = ups.x;
    tile_up[place + STRIDE] = ups.y;
    tile_up[place + 2u * STRIDE] = ups.z;
    tile_up[place + 3u * STRIDE] = ups.w;
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let at = k * STRIDE + column;
      let g = vec4<f32>(tile_gate[at], tile_gate[at + 1u], tile_gate[at + 2u], tile_gate[at + 3u]);
      let u = vec4<f32>(tile_up[at], tile_up[at + 1u], tile_up[at + 2u], tile_up[at + 3u]);
      let from_row = k * STRIDE + row;
      let t = vec4<f32>(tile_x[from_row], tile_x[from_row + 1u], tile_x[from_row + 2u], tile_x[from_row + 3u]);
      gated[0] += t.x * g;
      gated[1] += t.y * g;
      gated[2] += t.z * g;
      gated[3] += t.w * g;
      linear[0] += t.x * u;
      linear[1] += t.y * u;
      linear[2] += t.z * u;
      linear[3] += t.w * u;
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    let t = first_token + row + r;
    for (var q = 0u; q < 4u; q++) {
      let i = first_unit + column + q;
      if (t < params.tokens && i < params.intermediate_size) {
        hidden[t * params.intermediate_size + i] = act(params.activation, gated[r][q]) * linear[r][q];
      }
    }
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
  return decode_bf16(x[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_x(i: u32, valid: u32) -> vec4<f32> {
  let words = x[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
}
fn load_gate(i: u32) -> f32 {
  return decode_bf16(gate[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_gate(i: u32, valid: u32) -> vec4<f32> {
  let words = gate[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
}
fn load_up(i: u32) -> f32 {
  return decode_bf16(up[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_up(i: u32, valid: u32) -> vec4<f32> {
  let words = up[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
}