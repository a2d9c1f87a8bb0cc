// Purpose: the means over the batch that the backward of a training BatchNorm subtracts.
// Equation: with d the incoming gradient and n the input normalised with the mean as it was rounded:
//   sums[1, f] = mean_t(d (n - mean_t(n))), sums[0, f] = mean_t(d) - mean_t(n) sums[1, f].
// Shapes: x and d [tokens, features], mean and variance [features], sums [2, features].
// Parallelisation: as batch_norm_statistics: 16 features per workgroup of 256, 16 threads to a feature.
// Why: a fixed order of summation that depends on T alone. mean_t(n) is what rounding left of the mean: without it the
//   gradients of a batch would not sum to 0, which shows where hidden states far from 0 multiply them. Taken off here,
//   for all tokens at once, it costs the stream over the elements nothing.
// uses: grid

struct Params {
  tokens: u32,
  features: u32,
  epsilon: f32,
  inverse_tokens: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{x}}>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> variance: array<f32>;
@group(0) @binding(4) var<storage, read> gradient: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<f32>;

var<workgroup> tree: array<vec3<f32>, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let feature = workgroup_index(group, groups) * 16u + thread % 16u;
  let lane = thread / 16u;
  let present = feature < params.features;
  var sum = vec3<f32>();
  if (present) {
    let centre = mean[feature];
    let scale = inverseSqrt(variance[feature] + params.epsilon);
    for (var t = lane; t < params.tokens; t += 16u) {
      let d = gradient[t * params.features + feature];
      let normalized = (load_x(t * params.features + feature) - centre) * scale;
      sum += vec3<f32>(d, d * normalized, normalized);
    }
  }
  tree[thread] = sum;
  workgroupBarrier();
  for (var half = 8u; half > 0u; half /= 2u) {
    if (lane < half) {
      tree[thread] += tree[thread + 16u * half];
    }
    workgroupBarrier();
  }
  if (present && lane == 0u) {
    let means = tree[thread] * params.inverse_tokens;
    let centred = means.y - means.x * means.z;
    sums[feature] = means.x - means.z * centred;
    sums[params.features + feature] = centred;
  }
}
