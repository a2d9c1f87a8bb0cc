// uses: grid activation

struct Params {
  size: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> gated: array<f32>;
@group(0) @binding(2) var<storage, read_write> linear: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;

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
  let a = gated[n];
  let b = linear[n];
  let dh = gradient[n];
  let activated = act(params.activation, a);
  gated[n] = dh * b * act_slope(params.activation, a);
  linear[n] = dh * activated;
  gradient[n] = activated * b;
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}


fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn normal_distribution(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 12.0);
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  let tail = 0.5 * series * exp(-z * z);
  return select(tail, 1.0 - tail, x >= 0.0);
}

fn tanh_argument(x: f32) -> f32 {
  let c = clamp(x, -30.0, 30.0);
  return 1.5957691 * (c + 0.044715 * c * c * c);
}

fn act(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: { return x * normal_distribution(x); }
    case 2u: { return x * sigmoid(tanh_argument(x)); }
    case 3u: { return max(x, 0.0); }
    default: { return x * sigmoid(x); }
  }
}

fn act_slope(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: {
      let c = clamp(x, -20.0, 20.0);
      return normal_distribution(x) + c * exp(-0.5 * c * c) * 0.39894228;
    }
    case 2u: {
      let c = clamp(x, -30.0, 30.0);
      let s = sigmoid(tanh_argument(x));
      return s + c * s * (1.0 - s) * 1.5957691 * (1.0 + 0.134145 * c * c);
    }
    case 3u: { return select(0.0, 1.0, x > 0.0); }
    default: {
      let s = sigmoid(x);
      return s + clamp(x, -200.0, 200.0) * s * (1.0 - s);
    }
  }
}
