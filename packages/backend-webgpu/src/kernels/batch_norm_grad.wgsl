// Purpose: the gradient of BatchNorm's input.
// Equation: with r = 1 / sqrt(variance + epsilon) and n the normalised input,
//   training: gradInput (+)= r (d - sums[0] - n sums[1]); evaluation: gradInput (+)= r d.
// Shapes: x, d and gradInput [tokens, features], mean and variance [features], sums [2, features] of
//   batch_norm_grad_sums.
// Parallelisation: one element per thread.
// Why: the sums over the batch were made before, so that this pass is a stream.
// uses: grid

struct Params {
  size: u32,
  features: u32,
  epsilon: f32,
  training: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{x}}>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> variance: array<f32>;
@group(0) @binding(4) var<storage, read> gradient: array<f32>;
@group(0) @binding(5) var<storage, read> sums: array<f32>;
@group(0) @binding(6) var<storage, read_write> grad_input: array<f32>;

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
  let scale = inverseSqrt(variance[feature] + params.epsilon);
  var d = gradient[n];
  if (params.training == 1u) {
    let normalized = (load_x(n) - mean[feature]) * scale;
    d = d - sums[feature] - normalized * sums[params.features + feature];
  }
  let own = scale * d;
  if (params.accumulate == 1u) {
    grad_input[n] += own;
  } else {
    grad_input[n] = own;
  }
}
