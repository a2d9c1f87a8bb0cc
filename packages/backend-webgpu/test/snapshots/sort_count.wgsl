// uses: grid

struct Params {
  size: u32,
  blocks: u32,
  shift: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> entries: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

var<workgroup> bins: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let block = workgroup_index(group, groups);
  atomicStore(&bins[thread], 0u);
  workgroupBarrier();
  let n = block * 256u + thread;
  if (n < params.size) {
    atomicAdd(&bins[(entries[n].x >> params.shift) & 255u], 1u);
  }
  workgroupBarrier();
  if (block < params.blocks) {
    counts[thread * params.blocks + block] = atomicLoad(&bins[thread]);
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
