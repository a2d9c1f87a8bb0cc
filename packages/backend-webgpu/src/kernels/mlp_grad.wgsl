// Purpose: the elementwise part of the shared MLP's backward.
// Equation: with a = x Wg^T, b = x Wu^T and dh = gradOutput Wd:
//   hidden = act(a) b, da = dh b act'(a), db = dh act(a); a becomes da, b becomes db, dh becomes hidden.
// Shapes: all [tokens, intermediate] in f32; `size` elements.
// Parallelisation: one element per thread.
// Why: in place, so that the backward needs three intermediates and not six.
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
