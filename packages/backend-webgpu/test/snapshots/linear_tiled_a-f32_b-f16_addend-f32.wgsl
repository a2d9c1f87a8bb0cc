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
  transpose_a: u32,
  transpose_b: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;
@group(0) @binding(4) var<storage, read> addend: array<f32>;
@group(0) @binding(5) var<storage, read> input_mean: array<f32>;
@group(0) @binding(6) var<storage, read> input_variance: array<f32>;
@group(0) @binding(7) var<storage, read> output_mean: array<f32>;
@group(0) @binding(8) var<storage, read> output_variance: array<f32>;

const TILE = 64u;
const DEPTH = 16u;
const STRIDE = 65u;

var<workgroup> tile_a: array<f32, 1040>;
var<workgroup> tile_b: array<f32, 1040>;

fn normalized(value: f32, k: u32) -> f32 {
  return (value - input_mean[k]) * inverseSqrt(input_variance[k] + params.input_epsilon);
}

fn stage_a(first_row: u32, first_k: u32, thread: u32) {
  if (params.transpose_a == 1u) {
    let k = thread / 16u;
    let m = (thread % 16u) * 4u;
    var values = vec4<f32>();
    if (first_k + k < params.inner && first_row + m < params.rows) {
      values = load4_a((first_k + k) * params.rows + first_row + m, params.rows - first_row - m);
    }
    let place = k * STRIDE + m;
    tile_a[place] = values.x;
    tile_a[place + 1u] = values.y;
    tile_a[place + 2u] = values.z;
    tile_a[place + 3u] = values.w;
  } else {
    let m = thread / 4u;
    let k = (thread % 4u) * 4u;
    var values = vec4<f32>();
    if (first_row + m < params.rows && first_k + k < params.inner) {
      let valid = params.inner - first_k - k;
      values = load4_a((first_row + m) * params.inner + first_k + k, valid);
      if (params.input_norm == 1u) {
        for (var q = 0u; q < min(valid, 4u); q++) {
          values[q] = normalized(values[q], first_k + k + q);
        }
      }
    }
    let place = k * STRIDE + m;
    tile_a[place] = values.x;
    tile_a[place + STRIDE] = values.y;
    tile_a[place + 2u * STRIDE] = values.z;
    tile_a[place + 3u * STRIDE] = values.w;
  }
}

fn stage_b(first_column: u32, first_k: u32, thread: u32) {
  if (params.transpose_b == 1u) {
    let n = thread / 4u;
    let k = (thread % 4u) * 4u;
    var values = vec4<f32>();
    if (first_column + n < params.columns && first_k + k < params.inner) {
      values = load4_b((first_column + n) * params.inner + first_k + k, params.inner - first_k - k);
    }
    let place = k * STRIDE + n;
    tile_b[place] = values.x;
    tile_b[place + STRIDE] = values.y;
    tile_b[place + 2u * STRIDE] = values.z;
    tile_b[place + 3u * STRIDE] = values.w;
  } else {
    let k = thread / 16u;
    let n = (thread % 16u) * 4u;
    var values = vec4<f32>();
    if (first_k + k < params.inner && first_column + n < params.columns) {
      values = load4_b((first_k + k) * params.columns + first_column + n, params.columns - first_column - n);
    }
    let place = k * STRIDE + n;
    tile_b[place] = values.x;
    tile_b[place + 1u] = values.y;
    tile_b[place + 2u] = values.z;
    tile_b[place + 3u] = values.w;
  }
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tiles_across = (params.columns + TILE - 1u) / TILE;
  let index = workgroup_index(group, groups);
  let first_row = (index / tiles_across) * TILE;
  let first_column = (index % tiles_across) * TILE;
  let row = (thread / 16u) * 4u;
  let column = (thread % 16u) * 4u;
  var sums: array<vec4<f32>, 4>;
  for (var first_k = 0u; first_k < params.inner; first_k += DEPTH) {
    stage_a(first_row, first_k, thread);
    stage_b(first_column, first_k, thread);
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let at = k * STRIDE + column;
      let values = vec4<f32>(tile_b[at], tile_b[at + 1u], tile_b[at + 2u], tile_b[at + 3u]);
      let begin = k * STRIDE + row;
      sums[0] += tile_a[begin] * values;
      sums[1] += tile_a[begin + 1u] * values;
      sums[2] += tile_a[begin + 2u] * values;
      sums[3] += tile_a[begin + 3u] * values;
    }
    workgroupBarrier();
  }
  let n = first_column + column;
  if (n >= params.columns) {
    return;
  }
  let valid = params.columns - n;
  for (var r = 0u; r < 4u; r++) {
    let m = first_row + row + r;
    if (m >= params.rows) {
      break;
    }
    var values = sums[r];
    if (params.output_norm == 1u) {
      for (var q = 0u; q < min(valid, 4u); q++) {
        let scale = inverseSqrt(output_variance[n + q] + params.output_epsilon);
        values[q] = (values[q] - output_mean[n + q]) * scale;
      }
    }
    let at = m * params.columns + n;
    if (params.has_addend == 1u) {
      values += load4_addend(at, valid);
    }
    for (var q = 0u; q < min(valid, 4u); q++) {
      if (params.accumulate == 1u) {
        values[q] += output[at + q];
      }
      output[at + q] = values[q];
    }
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

fn load_a(i: u32) -> f32 {
  return a[i];
}
fn load4_a(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_a(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_a(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_a(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_a(i + 3u);
  }
  return values;
}
fn load_b(i: u32) -> f32 {
  return decode_f16(b[i >> 1u])[i & 1u];
}
fn load4_b(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_b(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_b(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_b(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_b(i + 3u);
  }
  return values;
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