// uses: grid

struct Params {
  pairs: u32,
  hidden_size: u32,
  num_experts: u32,
  tile: u32,
  low: u32,
  high: u32,
  accumulate: u32,
}

override COMPACT: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sorted: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> starts: array<u32>;
@group(0) @binding(3) var<storage, read> partials: array<f32>;
@group(0) @binding(4) var<storage, read_write> gradient: array<f32>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.hidden_size + 255u) / 256u;
  let index = workgroup_index(group, groups);
  let tile = index / slices;
  let begin = tile * params.tile;
  let next = begin + params.tile;
  if (next >= params.pairs) {
    return;
  }
  let expert = sorted[next - 1u].x;
  if (expert >= params.num_experts || sorted[next].x != expert) {
    return;
  }
  if (begin > 0u && sorted[begin - 1u].x == expert) {
    return;
  }
  var row = expert;
  if (COMPACT) {
    row = starts[next] - 1u;
  }
  for (var q = 0u; q < 4u; q++) {
    let column = (index % slices) * 256u + q * 64u + thread;
    let at = row * params.hidden_size + column;
    if (column < params.hidden_size && at >= params.low && at < params.high) {
      var sum = partials[(2u * tile + 1u) * params.hidden_size + column];
      var other = tile + 1u;
      while (other * params.tile < params.pairs && sorted[other * params.tile].x == expert) {
        sum += partials[2u * other * params.hidden_size + column];
        other++;
      }
      if (params.accumulate == 1u) {
        gradient[at - params.low] += sum;
      } else {
        gradient[at - params.low] = sum;
      }
    }
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}
