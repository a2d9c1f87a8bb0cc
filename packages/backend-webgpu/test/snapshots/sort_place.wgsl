// uses: grid

struct Params {
  size: u32,
  blocks: u32,
  shift: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> entries: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> starts: array<u32>;
@group(0) @binding(3) var<storage, read_write> sorted: array<vec2<u32>>;

var<workgroup> digits: array<u32, 256>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let block = workgroup_index(group, groups);
  let n = block * 256u + thread;
  let present = n < params.size;
  var entry = vec2<u32>();
  if (present) {
    entry = entries[n];
  }
  let digit = (entry.x >> params.shift) & 255u;
  digits[thread] = digit;
  workgroupBarrier();
  if (!present) {
    return;
  }
  var earlier = 0u;
  for (var other = 0u; other < thread; other++) {
    earlier += select(0u, 1u, digits[other] == digit);
  }
  sorted[starts[digit * params.blocks + block] + earlier] = entry;
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
