// Purpose: the elementwise part of the experts' backward.
// Equation: with a = x . down[id] and q = d . up[id]: gradWeights (+)= act(a) q; a becomes act(a) w, q becomes
//   w act'(a) q: what the rows of d and x are multiplied by in the gradients of the tables.
// Shapes: all [tokens, k]; `pairs` elements.
// Parallelisation: one pair per thread.
// Why: in place: two numbers per pair is all that the backward keeps.
// uses: grid activation

struct Params {
  pairs: u32,
  accumulate: u32,
  has_grad_weights: u32,
  num_experts: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> q: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> ids: array<i32>;
@group(0) @binding(5) var<storage, read_write> grad_weights: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let pair = workgroup_index(group, groups) * 256u + thread;
  if (pair >= params.pairs) {
    return;
  }
  let dot = a[pair];
  let gradient = q[pair];
  let weight = weights[pair];
  let activated = act(params.activation, dot);
  a[pair] = activated * weight;
  q[pair] = weight * act_slope(params.activation, dot) * gradient;
  if (params.has_grad_weights == 1u) {
    let own = select(0.0, activated * gradient, ids[pair] >= 0 && u32(ids[pair]) < params.num_experts);
    if (params.accumulate == 1u) {
      grad_weights[pair] += own;
    } else {
      grad_weights[pair] = own;
    }
  }
}
