enable f16;
// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f16>>;
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
  return f32(b[i >> 2u][i & 3u]);
}
fn load4_b(i: u32, valid: u32) -> vec4<f32> {
  return vec4<f32>(b[i >> 2u]);
}