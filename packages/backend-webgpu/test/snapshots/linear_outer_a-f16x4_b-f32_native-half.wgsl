enable f16;
// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let item = workgroup_index(group, groups) * 256u + thread;
  let n = item % params.columns;
  let m = (item / params.columns) * 4u;
  if (m >= params.rows) {
    return;
  }
  let valid = params.rows - m;
  var sums = vec4<f32>();
  for (var k = 0u; k < params.inner; k++) {
    sums += load4_a(k * params.rows + m, valid) * load_b(k * params.columns + n);
  }
  for (var r = 0u; r < min(valid, 4u); r++) {
    let at = (m + r) * params.columns + n;
    if (params.accumulate == 1u) {
      output[at] += sums[r];
    } else {
      output[at] = sums[r];
    }
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

fn load_a(i: u32) -> f32 {
  return f32(a[i >> 2u][i & 3u]);
}
fn load4_a(i: u32, valid: u32) -> vec4<f32> {
  return vec4<f32>(a[i >> 2u]);
}
fn load_b(i: u32) -> f32 {
  return b[i];
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