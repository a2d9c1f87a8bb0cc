// uses: grid

struct Params {
  pairs: u32,
  num_experts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<i32>;
@group(0) @binding(2) var<storage, read_write> entries: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let pair = workgroup_index(group, groups) * 256u + thread;
  if (pair < params.pairs) {
    let id = ids[pair];
    let present = id >= 0 && u32(id) < params.num_experts;
    entries[pair] = vec2<u32>(select(params.num_experts, u32(max(id, 0)), present), pair);
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
