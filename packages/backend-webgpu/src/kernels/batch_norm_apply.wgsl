// Purpose: BatchNorm1d (affine = False) with given statistics.
// Equation: output = (x - mean) / sqrt(variance + epsilon), in training with the mean in two parts, as a sum.
// Shapes: x and output [tokens, features], mean and variance [features]; exact_mean [2, features]: the
//   two parts; `size` elements.
// Parallelisation: one element per thread.
// Why: the difference is formed first, and what rounding left of the batch's mean subtracted then, so that a mean far
//   larger than the deviations costs nothing.
// uses: grid

struct Params {
  size: u32,
  features: u32,
  epsilon: f32,
  training: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{x}}>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> variance: array<f32>;
@group(0) @binding(4) var<storage, read> exact_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = workgroup_index(group, groups) * 256u + thread;
  if (n >= params.size) {
    return;
  }
  let feature = n % params.features;
  let value = load_x(n);
  var centred = 0.0;
  if (params.training == 1u) {
    centred = (value - exact_mean[feature]) - exact_mean[params.features + feature];
  } else {
    centred = value - mean[feature];
  }
  output[n] = centred * inverseSqrt(variance[feature] + params.epsilon);
}
