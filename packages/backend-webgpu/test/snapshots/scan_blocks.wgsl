// uses: grid

struct Params {
  size: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> totals: array<u32>;

var<workgroup> sums: array<u32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let block = workgroup_index(group, groups);
  let first = block * 1024u + thread * 4u;
  var own: array<u32, 4>;
  var sum = 0u;
  for (var q = 0u; q < 4u; q++) {
    if (first + q < params.size) {
      own[q] = values[first + q];
    }
    sum += own[q];
  }
  sums[thread] = sum;
  workgroupBarrier();
  for (var step = 1u; step < 256u; step *= 2u) {
    var before = 0u;
    if (thread >= step) {
      before = sums[thread - step];
    }
    workgroupBarrier();
    sums[thread] += before;
    workgroupBarrier();
  }
  var before = sums[thread] - sum;
  for (var q = 0u; q < 4u; q++) {
    if (first + q < params.size) {
      values[first + q] = before;
    }
    before += own[q];
  }
  if (thread == 255u && block * 1024u < params.size) {
    totals[block] = sums[255];
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
