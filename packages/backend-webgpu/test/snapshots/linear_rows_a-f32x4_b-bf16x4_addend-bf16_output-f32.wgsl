// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
  input_norm: u32,
  output_norm: u32,
  has_addend: u32,
  input_epsilon: f32,
  output_epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> addend: array<u32>;
@group(0) @binding(5) var<storage, read> input_mean: array<f32>;
@group(0) @binding(6) var<storage, read> input_variance: array<f32>;
@group(0) @binding(7) var<storage, read> output_mean: array<f32>;
@group(0) @binding(8) var<storage, read> output_variance: array<f32>;

const ROWS = 4u;
const LANES = 16u;

var<workgroup> tree: array<vec4<f32>, 128>;
var<workgroup> partial: array<vec4<f32>, 16>;

fn row_values(row: u32, k: u32, valid: u32, mean: vec4<f32>, scale: vec4<f32>) -> vec4<f32> {
  let values = load4_a(row * params.inner + k, valid);
  if (params.input_norm == 1u) {
    return (values - mean) * scale;
  }
  return values;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.columns + 7u) / 8u;
  let index = workgroup_index(group, groups);
  let lane = thread % LANES;
  let first_row = (index / slices) * ROWS;
  let column = (index % slices) * 8u + (thread / LANES) * 2u;
  let present = column < params.columns;
  let rows = min(ROWS, max(params.rows, first_row) - first_row);
  let has_second = column + 1u < params.columns;
  var first = vec4<f32>();
  var second = vec4<f32>();
  for (var k = lane * 4u; present && k < params.inner; k += 4u * LANES) {
    let valid = params.inner - k;
    var mean = vec4<f32>();
    var scale = vec4<f32>();
    if (params.input_norm == 1u) {
      let at = min(vec4<u32>(k, k + 1u, k + 2u, k + 3u), vec4<u32>(params.inner - 1u));
      mean = vec4<f32>(input_mean[at.x], input_mean[at.y], input_mean[at.z], input_mean[at.w]);
      let spread = vec4<f32>(
        input_variance[at.x], input_variance[at.y], input_variance[at.z], input_variance[at.w]);
      scale = inverseSqrt(spread + params.input_epsilon);
    }
    let weights = load4_b(column * params.inner + k, valid);
    var others = vec4<f32>();
    if (has_second) {
      others = load4_b((column + 1u) * params.inner + k, valid);
    }
    let x = row_values(first_row, k, valid, mean, scale);
    first.x += dot(x, weights);
    second.x += dot(x, others);
    if (rows > 1u) {
      let y = row_values(first_row + 1u, k, valid, mean, scale);
      let z = row_values(first_row + min(2u, rows - 1u), k, valid, mean, scale);
      let w = row_values(first_row + rows - 1u, k, valid, mean, scale);
      first += vec4<f32>(0.0, dot(y, weights), dot(z, weights), dot(w, weights));
      second += vec4<f32>(0.0, dot(y, others), dot(z, others), dot(w, others));
    }
  }
  tree[thread] = first;
  tree[64u + thread] = second;
  workgroupBarrier();
  if (thread < 16u) {
    var sum = vec4<f32>();
    for (var n = 0u; n < 8u; n++) {
      sum += tree[thread * 8u + n];
    }
    partial[thread] = sum;
  }
  workgroupBarrier();
  if (lane >= rows || !present) {
    return;
  }
  let own = (thread / LANES) * 2u;
  let valid = select(1u, 2u, has_second);
  var values = vec4<f32>();
  values.x = partial[own][lane] + partial[own + 1u][lane];
  values.y = partial[8u + own][lane] + partial[9u + own][lane];
  if (params.output_norm == 1u) {
    for (var q = 0u; q < valid; q++) {
      let spread = output_variance[column + q] + params.output_epsilon;
      values[q] = (values[q] - output_mean[column + q]) * inverseSqrt(spread);
    }
  }
  let at = (first_row + lane) * params.columns + column;
  if (params.has_addend == 1u) {
    values += load4_addend(at, valid);
  }
  if (params.accumulate == 1u) {
    values += load4_output(at, valid);
  }
  store4_output(at, values, valid);
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

fn load_a(i: u32) -> f32 {
  return a[i >> 2u][i & 3u];
}
fn load4_a(i: u32, valid: u32) -> vec4<f32> {
  return a[i >> 2u];
}
fn load_b(i: u32) -> f32 {
  return decode_bf16(b[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_b(i: u32, valid: u32) -> vec4<f32> {
  let words = b[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
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
fn load_addend(i: u32) -> f32 {
  return decode_bf16(addend[i >> 1u])[i & 1u];
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