// uses: grid activation

struct Params {
  tokens: u32,
  top_k: u32,
  hidden_size: u32,
  num_experts: u32,
  low: u32,
  high: u32,
  accumulate: u32,
  has_addend: u32,
  activation: u32,
}

override ACTIVATE: bool = false;
override ACROSS: u32 = 64u;
const DEPTH = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> ids: array<i32>;
@group(0) @binding(3) var<storage, read> dots: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> addend: array<f32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;

var<workgroup> rows: array<i32, 4u * ACROSS>;
var<workgroup> coefficients: array<f32, 4u * ACROSS>;
var<workgroup> sums: array<vec4<f32>, 4u * ACROSS>;

@compute @workgroup_size(4u * ACROSS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.hidden_size + 4u * ACROSS - 1u) / (4u * ACROSS);
  let index = workgroup_index(group, groups);
  let token = index / slices;
  if (token >= params.tokens) {
    return;
  }
  let column = ((index % slices) * ACROSS + thread % ACROSS) * 4u;
  let depth = thread / ACROSS;
  var sum = vec4<f32>();
  for (var first = 0u; first < params.top_k; first += DEPTH * ACROSS) {
    if (first + thread < params.top_k) {
      let pair = token * params.top_k + first + thread;
      let id = ids[pair];
      let present = id >= 0 && u32(id) < params.num_experts;
      rows[thread] = select(-1, id, present);
      if (ACTIVATE) {
        coefficients[thread] = act(params.activation, dots[pair]) * weights[pair];
      } else {
        coefficients[thread] = dots[pair];
      }
    }
    workgroupBarrier();
    let experts = min(DEPTH * ACROSS, params.top_k - first);
    for (var n = depth; n < experts; n += DEPTH) {
      if (rows[n] >= 0 && column < params.hidden_size) {
        let row = u32(rows[n]) * params.hidden_size;
        let begin = clamp(params.low, row, row + params.hidden_size) - row;
        let end = clamp(params.high, row, row + params.hidden_size) - row;
        if (column >= begin && column < end) {
          sum += coefficients[n] * load4_table(row + column - params.low, end - column);
        } else if (column < begin && column + 4u > begin && end > begin) {
          for (var q = begin - column; q < min(4u, end - column); q++) {
            sum[q] += coefficients[n] * load_table(row + column + q - params.low);
          }
        }
      }
    }
    workgroupBarrier();
  }
  sums[thread] = sum;
  workgroupBarrier();
  if (depth > 0u || column >= params.hidden_size) {
    return;
  }
  sum = ((sum + sums[thread + ACROSS]) + sums[thread + 2u * ACROSS]) + sums[thread + 3u * ACROSS];
  let at = token * params.hidden_size + column;
  let valid = params.hidden_size - column;
  if (params.has_addend == 1u) {
    sum += load4_addend(at, valid);
  }
  if (params.accumulate == 1u) {
    sum += load4_output(at, valid);
  }
  store4_output(at, sum, valid);
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

fn load_table(i: u32) -> f32 {
  return decode_f16(table[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_table(i: u32, valid: u32) -> vec4<f32> {
  let words = table[i >> 2u];
  return vec4<f32>(decode_f16(words.x), decode_f16(words.y));
}
fn load_addend(i: u32) -> f32 {
  return addend[i];
}
fn load4_addend(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_addend(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_addend(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_addend(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_addend(i + 3u);
  }
  return values;
}
fn load_output(i: u32) -> f32 {
  return output[i];
}
fn load4_output(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_output(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_output(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_output(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_output(i + 3u);
  }
  return values;
}
fn store4_output(i: u32, values: vec4<f32>, valid: u32) {
  for (var q = 0u; q < min(valid, 4u); q++) {
    output[i + q] = values[q];
  }
}