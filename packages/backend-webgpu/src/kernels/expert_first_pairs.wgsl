// Purpose: marks where a new expert begins among the sorted pairs.
// Equation: marks[n] = 1 where the key of n is an expert and differs from the one before; scanned, the place of n's
//   expert among those in use, plus one where n is not its first.
// Shapes: sorted [pairs] of (expert, pair), marks [pairs].
// Parallelisation: one pair per thread.
// Why: with this the compact gradients need nothing of the size N.
// uses: grid

struct Params {
  pairs: u32,
  num_experts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sorted: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> marks: array<u32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = workgroup_index(group, groups) * 256u + thread;
  if (n >= params.pairs) {
    return;
  }
  let key = sorted[n].x;
  var mark = key < params.num_experts;
  if (mark && n > 0u) {
    mark = sorted[n - 1u].x != key;
  }
  marks[n] = select(0u, 1u, mark);
}
