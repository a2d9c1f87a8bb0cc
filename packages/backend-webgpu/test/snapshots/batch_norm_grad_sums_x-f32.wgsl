// uses: grid

struct Params {
  tokens: u32,
  features: u32,
  epsilon: f32,
  inverse_tokens: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
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

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

fn load_x(i: u32) -> f32 {
  return x[i];
}
fn load4_x(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_x(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_x(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_x(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_x(i + 3u);
  }
  return values;
}