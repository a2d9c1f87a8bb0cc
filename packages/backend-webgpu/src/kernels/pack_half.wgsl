// Purpose: f32 values stored as 16-bit floats.
// Equation: output[n] = round(values[n]), to nearest, ties to even.
// Shapes: both [size].
// Parallelisation: a thread owns a word, two elements.
// Why: where the rows of a 16-bit output have an odd length, two rows share a word, and two workgroups would race.
// uses: grid

struct Params {
  size: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<{{output}}>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = (workgroup_index(group, groups) * 256u + thread) * 2u;
  if (n >= params.size) {
    return;
  }
  var pair = vec4<f32>(values[n], 0.0, 0.0, 0.0);
  if (n + 1u < params.size) {
    pair.y = values[n + 1u];
  }
  store4_output(n, pair, 2u);
}
