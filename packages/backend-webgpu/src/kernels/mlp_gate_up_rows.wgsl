// Purpose: the gated intermediate of the shared MLP for few tokens.
// Equation: hidden[t, i] = act(sum_h x[t, h] gate[i, h]) * sum_h x[t, h] up[i, h].
// Shapes: x [tokens, hidden], gate and up [intermediate, hidden], hidden [tokens, intermediate] in f32.
// Parallelisation: a workgroup of 64 per four units and four tokens, 16 threads to a unit: each every 16th group of
//   four elements of the sums, then eights of these, then the two sums.
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

const LANES = 16u;

var<workgroup> tree: array<vec4<f32>, 128>;
var<workgroup> partial: array<vec4<f32>, 16>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = workgroup_index(group, groups);
  let slices = (params.intermediate_size + 3u) / 4u;
  let lane = thread % LANES;
  let first_token = (index / slices) * 4u;
  let i = (index % slices) * 4u + thread / LANES;
  let present = i < params.intermediate_size;
  let tokens = min(4u, max(params.tokens, first_token) - first_token);
  var gated = vec4<f32>();
  var linear = vec4<f32>();
  for (var h = lane * 4u; present && h < params.hidden_size; h += 4u * LANES) {
    let valid = params.hidden_size - h;
    let gates = load4_gate(i * params.hidden_size + h, valid);
    let ups = load4_up(i * params.hidden_size + h, valid);
    let x0 = load4_x(first_token * params.hidden_size + h, valid);
    gated.x += dot(x0, gates);
    linear.x += dot(x0, ups);
    if (tokens > 1u) {
      // Tokens past the last are its copies, and are not written.
      let x1 = load4_x((first_token + 1u) * params.hidden_size + h, valid);
      let x2 = load4_x((first_token + min(2u, tokens - 1u)) * params.hidden_size + h, valid);
      let x3 = load4_x((first_token + tokens - 1u) * params.hidden_size + h, valid);
      gated += vec4<f32>(0.0, dot(x1, gates), dot(x2, gates), dot(x3, gates));
      linear += vec4<f32>(0.0, dot(x1, ups), dot(x2, ups), dot(x3, ups));
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
  if (lane < tokens && present) {
    let own = (thread / LANES) * 2u;
    let a = partial[own][lane] + partial[own + 1u][lane];
    let b = partial[8u + own][lane] + partial[9u + own][lane];
    let at = (first_token + lane) * params.intermediate_size + i;
    hidden[at] = act(params.activation, a) * b;
  }
}
