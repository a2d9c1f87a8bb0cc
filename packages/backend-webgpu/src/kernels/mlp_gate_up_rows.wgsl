// Purpose: the gated intermediate of the shared MLP for few tokens.
// Equation: hidden[t, i] = act(sum_h x[t, h] gate[i, h]) * sum_h x[t, h] up[i, h].
// Shapes: x [tokens, hidden], gate and up [intermediate, hidden], hidden [tokens, intermediate] in f32.
// Parallelisation: a workgroup of 64 per unit i and four tokens; each thread every 64th group of four elements of
//   the sums, then eights of these, then the eight sums.
// Why: as linear_rows: the cost is reading the weights, and a tile would leave most of its rows idle.
// uses: grid activation

struct Params {
  tokens: u32,
  hidden_size: u32,
  intermediate_size: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{x}}>;
@group(0) @binding(2) var<storage, read> gate: array<{{gate}}>;
@group(0) @binding(3) var<storage, read> up: array<{{up}}>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

var<workgroup> tree: array<vec4<f32>, 128>;
var<workgroup> partial: array<vec4<f32>, 16>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = workgroup_index(group, groups);
  let first_token = (index / params.intermediate_size) * 4u;
  let i = index % params.intermediate_size;
  let tokens = min(4u, max(params.tokens, first_token) - first_token);
  var gated = vec4<f32>();
  var linear = vec4<f32>();
  for (var h = thread * 4u; h < params.hidden_size; h += 256u) {
    let valid = params.hidden_size - h;
    let gates = load4_gate(i * params.hidden_size + h, valid);
    let ups = load4_up(i * params.hidden_size + h, valid);
    for (var r = 0u; r < tokens; r++) {
      let values = load4_x((first_token + r) * params.hidden_size + h, valid);
      gated[r] += dot(values, gates);
      linear[r] += dot(values, ups);
    }
  }
  tree[thread] = gated;
  tree[64u + thread] = linear;
  workgroupBarrier();
  if (thread < 16u) {
    var sum = vec4<f32>();
    for (var n = 0u; n < 8u; n++) {
      sum += tree[thread * 8u + n];
    }
    partial[thread] = sum;
  }
  workgroupBarrier();
  if (thread < tokens) {
    var a = 0.0;
    var b = 0.0;
    for (var n = 0u; n < 8u; n++) {
      a += partial[n][thread];
      b += partial[8u + n][thread];
    }
    let at = (first_token + thread) * params.intermediate_size + i;
    hidden[at] = act(params.activation, a) * b;
  }
}
