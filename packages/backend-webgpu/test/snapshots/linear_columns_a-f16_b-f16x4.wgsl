// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

const ROWS = 4u;
const LANES = 16u;
const WIDTH = 32u;

var<workgroup> partial: array<f32, 2048>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.columns + WIDTH - 1u) / WIDTH;
  let index = workgroup_index(group, groups);
  let first_row = (index / slices) * ROWS;
  let first_column = (index % slices) * WIDTH;
  let rows = min(ROWS, max(params.rows, first_row) - first_row);
  let lane = thread / 8u;
  let own = (thread % 8u) * 4u;
  let column = first_column + own;
  var sums: array<vec4<f32>, 4>;
  if (column < params.columns) {
    let valid = params.columns - column;
    for (var k = lane; k < params.inner; k += LANES) {
      let values = load4_b(k * params.columns + column, valid);
      for (var r = 0u; r < rows; r++) {
        sums[r] += load_a((first_row + r) * params.inner + k) * values;
      }
    }
  }
  for (var r = 0u; r < rows; r++) {
    for (var q = 0u; q < 4u; q++) {
      partial[(lane * ROWS + r) * WIDTH + own + q] = sums[r][q];
    }
  }
  workgroupBarrier();
  let row = thread / WIDTH;
  let n = first_column + thread % WIDTH;
  if (row >= rows || n >= params.columns) {
    return;
  }
  var sum = 0.0;
  for (var l = 0u; l < LANES; l++) {
    sum += partial[l * ROWS * WIDTH + thread];
  }
  let at = (first_row + row) * params.columns + n;
  if (params.accumulate == 1u) {
    output[at] += sum;
  } else {
    output[at] = sum;
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
  return decode_f16(a[i >> 1u])[i & 1u];
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
  return decode_f16(b[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_b(i: u32, valid: u32) -> vec4<f32> {
  let words = b[i >> 2u];
  return vec4<f32>(decode_f16(words.x), decode_f16(words.y));
}