// Purpose: the gradients of experts whose pairs span several tiles of expert_table_grad.
// Equation: gradient[row of e] (+)= the partial sum of the tile that e begins in, then those of the tiles it goes on
//   in, in order.
// Shapes: as expert_table_grad.
// Parallelisation: a workgroup of 64 per tile and 256 columns; only the tile in which a shared expert begins works.
// Why: the partial sums of a row are added by one thread in the order of the list, so the bits are the same on every
//   run. A segment of 256 * m pairs costs m steps.
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
  // It begins here unless it fills the tile and comes from the one before.
  if (begin > 0u && sorted[begin - 1u].x == expert) {
    return;
  }
  var row = expert;
  if (COMPACT) {
    // The scan counts the firsts before n: one more than the place of n's expert where n is not its first.
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
