// Purpose: the statistics of a batch, and the update of the running ones.
// Equation: centre = sum_t x / T; in a second pass left = sum_t (x - centre) / T, which is what rounding left of the
//   mean; variance = sum_t (x - centre)^2 / T - left^2, never E[x^2] - E[x]^2; mean = centre + left, and both kept, since
//   this sum is rounded again; running mean and (unbiased) running variance r become (1 - momentum) r + momentum s.
// Shapes: x [tokens, features], all statistics [features], exact_mean [2, features]: centre and left.
// Parallelisation: a workgroup of 256 takes 16 features; 16 threads share a feature, each every 16th token, then a
//   fixed tree of 16.
// Why: neighbouring threads read neighbouring features, and the order of the sums depends on T alone. What the sum of
//   centre and left leaves when it is rounded is not computed: WGSL lets a compiler reorder that to 0.
// uses: grid

struct Params {
  tokens: u32,
  features: u32,
  inverse_tokens: f32,
  unbiased: f32,
  momentum: f32,
  keep: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{x}}>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> exact_mean: array<f32>;

var<workgroup> tree: array<vec2<f32>, 256>;

fn sum_of_feature(value: vec2<f32>, thread: u32) -> vec2<f32> {
  workgroupBarrier();
  tree[thread] = value;
  workgroupBarrier();
  for (var half = 8u; half > 0u; half /= 2u) {
    if (thread / 16u < half) {
      tree[thread] += tree[thread + 16u * half];
    }
    workgroupBarrier();
  }
  return tree[thread % 16u];
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let feature = workgroup_index(group, groups) * 16u + thread % 16u;
  let lane = thread / 16u;
  let present = feature < params.features;
  var sum = 0.0;
  if (present) {
    for (var t = lane; t < params.tokens; t += 16u) {
      sum += load_x(t * params.features + feature);
    }
  }
  let centre = sum_of_feature(vec2<f32>(sum, 0.0), thread).x * params.inverse_tokens;
  var moments = vec2<f32>();
  if (present) {
    for (var t = lane; t < params.tokens; t += 16u) {
      let difference = load_x(t * params.features + feature) - centre;
      moments += vec2<f32>(difference, difference * difference);
    }
  }
  moments = sum_of_feature(moments, thread) * params.inverse_tokens;
  if (present && lane == 0u) {
    // An infinite value has an infinite mean, not a NaN.
    let left = select(0.0, moments.x, abs(centre) <= 3.4e38);
    let rounded = centre + left;
    let spread = max(moments.y - left * left, 0.0);
    mean[feature] = rounded;
    variance[feature] = spread;
    exact_mean[feature] = centre;
    exact_mean[params.features + feature] = left;
    running_mean[feature] = params.keep * running_mean[feature] + params.momentum * rounded;
    let unbiased = spread * params.unbiased;
    running_variance[feature] = params.keep * running_variance[feature] + params.momentum * unbiased;
  }
}
