// uses: grid

struct Params {
  pairs: u32,
  num_experts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sorted: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> starts: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<i32>;
@group(0) @binding(4) var<storage, read_write> count: array<i32>;

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
  var is_first = key < params.num_experts;
  if (is_first && n > 0u) {
    is_first = sorted[n - 1u].x != key;
  }
  if (is_first) {
    ids[starts[n]] = i32(key);
  }
  if (n == params.pairs - 1u) {
    count[0] = i32(starts[n] + select(0u, 1u, is_first));
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
