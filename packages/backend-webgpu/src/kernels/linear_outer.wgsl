// Purpose: the matrix product over a short inner dimension: the gradient of a weight from few tokens.
// Equation: output[m, n] (+)= sum_k a[k, m] b[k, n].
// Shapes: a [inner, rows], b [inner, columns], output [rows, columns] in f32.
// Parallelisation: a thread makes four rows of one column; its neighbour has the next column, so a workgroup of 256
//   writes whole lines of memory, whatever the width. No workgroup memory, no barrier.
// Why: the cost is writing the output once. A tile would stage 16 of the inner dimension, most of them absent, and have
//   all its threads wait twice before the first one writes.
// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<{{a}}>;
@group(0) @binding(2) var<storage, read> b: array<{{b}}>;
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
