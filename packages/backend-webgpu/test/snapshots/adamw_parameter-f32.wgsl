// uses: grid report

struct Params {
  rows: u32,
  columns: u32,
  capacity: u32,
  low: u32,
  high: u32,
  gradient_low: u32,
  gradient_high: u32,
  has_master: u32,
  ids_slot: u32,
  scale: f32,
  kept: f32,
  beta1: f32,
  rest1: f32,
  beta2: f32,
  rest2: f32,
  step_size: f32,
  correction: f32,
  epsilon: f32,
}

override COMPACT: bool = false;
override WIDTH: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(2) var<storage, read_write> master: array<f32>;
@group(0) @binding(3) var<storage, read_write> first_moment: array<f32>;
@group(0) @binding(4) var<storage, read_write> second_moment: array<f32>;
@group(0) @binding(5) var<storage, read> gradient: array<f32>;
@group(0) @binding(6) var<storage, read> row_ids: array<i32>;
@group(0) @binding(7) var<storage, read> count: array<i32>;
@group(0) @binding(8) var<storage, read_write> errors: array<atomic<u32>>;

fn updated(at: u32, source: u32, value: f32) -> f32 {
  let g = params.scale * gradient[source];
  var p = value;
  if (params.has_master == 1u) {
    p = master[at];
  }
  p *= params.kept;
  let m = params.beta1 * first_moment[at] + params.rest1 * g;
  let v = params.beta2 * second_moment[at] + params.rest2 * g * g;
  first_moment[at] = m;
  second_moment[at] = v;
  p -= params.step_size * m / (sqrt(v) * params.correction + params.epsilon);
  if (params.has_master == 1u) {
    master[at] = p;
  }
  return p;
}

fn in_window(at: u32, source: u32) -> bool {
  return at >= params.low && at < params.high && source >= params.gradient_low && source < params.gradient_high;
}

fn dense(n: u32) {
  let first = params.low + n * WIDTH;
  if (first >= params.high) {
    return;
  }
  var values = load4_parameter(first - params.low, min(WIDTH, params.high - first));
  for (var q = 0u; q < WIDTH; q++) {
    if (in_window(first + q, first + q)) {
      values[q] = updated(first + q - params.low, first + q - params.gradient_low, values[q]);
    }
  }
  store4_parameter(first - params.low, values, min(WIDTH, params.high - first));
}

fn valid_row(entry: u32) -> bool {
  return row_ids[entry] >= 0 && u32(row_ids[entry]) < params.rows;
}

fn compact(n: u32) {
  let used = u32(clamp(count[0], 0, i32(params.capacity)));
  let words = (params.columns + WIDTH - 1u) / WIDTH + WIDTH - 1u;
  let entry = n / words;
  if (entry >= used) {
    return;
  }
  if (!valid_row(entry)) {
    if (n % words == 0u) {
      report(params.ids_slot, entry, bitcast<u32>(row_ids[entry]));
    }
    return;
  }
  let row = u32(row_ids[entry]) * params.columns;
  let end = row + params.columns;
  let first = (row / WIDTH + n % words) * WIDTH;
  if (first >= end || first < params.low || first >= params.high) {
    return;
  }
  let joined = entry > 0u && valid_row(max(entry, 1u) - 1u) && row_ids[max(entry, 1u) - 1u] + 1 == row_ids[entry];
  if (first < row && joined) {
    return;
  }
  let total = params.rows * params.columns;
  let here = min(WIDTH, min(params.high, total) - first);
  var values = load4_parameter(first - params.low, here);
  for (var q = 0u; q < here; q++) {
    let at = first + q;
    var source = entry * params.columns + at - row;
    var mine = at >= row;
    if (at >= end) {
      mine = entry + 1u < used && row_ids[min(entry + 1u, params.capacity - 1u)] == row_ids[entry] + 1;
    }
    if (mine && in_window(at, source)) {
      values[q] = updated(at - params.low, source - params.gradient_low, values[q]);
    }
  }
  store4_parameter(first - params.low, values, here);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = workgroup_index(group, groups) * 256u + thread;
  if (COMPACT) {
    compact(n);
  } else {
    dense(n);
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

fn load_parameter(i: u32) -> f32 {
  return parameter[i];
}
fn load4_parameter(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_parameter(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_parameter(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_parameter(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_parameter(i + 3u);
  }
  return values;
}
fn store4_parameter(i: u32, values: vec4<f32>, valid: u32) {
  for (var q = 0u; q < min(valid, 4u); q++) {
    parameter[i + q] = values[q];
  }
}