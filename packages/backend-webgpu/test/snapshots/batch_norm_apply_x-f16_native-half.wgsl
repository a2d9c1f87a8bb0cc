enable f16;
// uses: grid

struct Params {
  size: u32,
  features: u32,
  epsilon: f32,
  training: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f16>;
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

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

fn load_x(i: u32) -> f32 {
  return f32(x[i]);
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