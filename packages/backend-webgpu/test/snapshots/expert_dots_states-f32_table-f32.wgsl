// uses: grid report

struct Params {
  pairs: u32,
  top_k: u32,
  hidden_size: u32,
  num_experts: u32,
  low: u32,
  high: u32,
  accumulate: u32,
  slot: u32,
}

override LANES: u32 = 32u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> states: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<i32>;
@group(0) @binding(4) var<storage, read_write> dots: array<f32>;
@group(0) @binding(5) var<storage, read_write> errors: array<atomic<u32>>;

var<workgroup> tree: array<f32, 128>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let pair = workgroup_index(group, groups) * (128u / LANES) + thread / LANES;
  let lane = thread % LANES;
  var sum = 0.0;
  if (pair < params.pairs) {
    let id = ids[pair];
    if (id >= 0 && u32(id) < params.num_experts) {
      let row = u32(id) * params.hidden_size;
      let begin = clamp(params.low, row, row + params.hidden_size) - row;
      let end = clamp(params.high, row, row + params.hidden_size) - row;
      let state = (pair / params.top_k) * params.hidden_size;
      for (var h = begin + lane * 4u; h < end; h += 4u * LANES) {
        let valid = end - h;
        sum += dot(load4_states(state + h, valid), load4_table(row + h - params.low, valid));
      }
    } else if (lane == 0u) {
      report(params.slot, pair, bitcast<u32>(id));
    }
  }
  tree[thread] = sum;
  workgroupBarrier();
  if (lane % 8u == 0u) {
    sum = 0.0;
    for (var n = 0u; n < 8u; n++) {
      sum += tree[thread + n];
    }
    tree[thread] = sum;
  }
  workgroupBarrier();
  if (lane == 0u && pair < params.pairs) {
    for (var n = 8u; n < LANES; n += 8u) {
      sum += tree[thread + n];
    }
    if (params.accumulate == 1u) {
      dots[pair] += sum;
    } else {
      dots[pair] = sum;
    }
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

fn report(slot: u32, place: u32, value: u32) {
  loop {
    let claim = atomicCompareExchangeWeak(&errors[4u * slot], 0u, place + 1u);
    if (claim.exchanged) {
      atomicStore(&errors[4u * slot + 1u], value);
      break;
    }
    if (claim.old_value != 0u) {
      break;
    }
  }
}

fn load_states(i: u32) -> f32 {
  return states[i];
}
fn load4_states(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_states(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_states(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_states(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_states(i + 3u);
  }
  return values;
}
fn load_table(i: u32) -> f32 {
  return table[i];
}
fn load4_table(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_table(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_table(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_table(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_table(i + 3u);
  }
  return values;
}