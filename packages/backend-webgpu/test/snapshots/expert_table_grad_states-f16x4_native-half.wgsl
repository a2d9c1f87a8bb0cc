enable f16;
// uses: grid

struct Params {
  pairs: u32,
  top_k: u32,
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
@group(0) @binding(3) var<storage, read> coefficients: array<f32>;
@group(0) @binding(4) var<storage, read> states: array<vec4<f16>>;
@group(0) @binding(5) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

fn write_partial(row: u32, column: u32, sum: vec4<f32>) {
  for (var q = 0u; q < min(4u, params.hidden_size - column); q++) {
    partials[row * params.hidden_size + column + q] = sum[q];
  }
}

fn write_row(row: u32, column: u32, sum: vec4<f32>) {
  for (var q = 0u; q < min(4u, params.hidden_size - column); q++) {
    let at = row * params.hidden_size + column + q;
    if (at >= params.low && at < params.high) {
      if (params.accumulate == 1u) {
        gradient[at - params.low] += sum[q];
      } else {
        gradient[at - params.low] = sum[q];
      }
    }
  }
}

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
  let column = (index % slices) * 256u + thread * 4u;
  if (begin >= params.pairs || column >= params.hidden_size) {
    return;
  }
  let end = min(begin + params.tile, params.pairs);
  let valid = params.hidden_size - column;
  let first = sorted[begin].x;
  let continued = begin > 0u && sorted[max(begin, 1u) - 1u].x == first;
  var sum = vec4<f32>();
  var start = begin;
  for (var n = begin; n < end; n++) {
    let entry = sorted[n];
    if (entry.x >= params.num_experts) {
      break;
    }
    sum += coefficients[entry.y] * load4_states((entry.y / params.top_k) * params.hidden_size + column, valid);
    var next = 0xffffffffu;
    if (n + 1u < params.pairs) {
      next = sorted[n + 1u].x;
    }
    let ends = next != entry.x;
    if (ends || n + 1u == end) {
      if (start == begin && continued) {
        write_partial(2u * tile, column, sum);
      } else if (!ends) {
        write_partial(2u * tile + 1u, column, sum);
      } else if (COMPACT) {
        write_row(starts[start], column, sum);
      } else {
        write_row(entry.x, column, sum);
      }
      sum = vec4<f32>();
      start = n + 1u;
    }
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

fn load_states(i: u32) -> f32 {
  return f32(states[i >> 2u][i & 3u]);
}
fn load4_states(i: u32, valid: u32) -> vec4<f32> {
  return vec4<f32>(states[i >> 2u]);
}