// uses: grid order log_sum

struct Params {
  first: u32,
  count: u32,
  keys_x: u32,
  keys_y: u32,
  top_k: u32,
  normalize: u32,
  size_x: u32,
  size_y: u32,
  size_k: u32,
  token_words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;
@group(0) @binding(3) var<storage, read_write> weights: array<u32>;
@group(0) @binding(4) var<storage, read_write> scratch: array<vec2<u32>>;

var<workgroup> total: atomic<u32>;
var<workgroup> shares: array<vec2<u32>, THREADS>;

fn is_after(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y > b.y);
}

fn sort_list(start: u32, size: u32, thread: u32) {
  for (var run = 2u; run <= size; run *= 2u) {
    for (var step = run / 2u; step > 0u; step /= 2u) {
      for (var n = thread; n < size / 2u; n += THREADS) {
        let low = (n / step) * 2u * step + n % step;
        let high = low + step;
        let ascending = (low & run) == 0u;
        let a = scratch[start + low];
        let b = scratch[start + high];
        if (is_after(a, b) == ascending) {
          scratch[start + low] = b;
          scratch[start + high] = a;
        }
      }
      storageBarrier();
    }
  }
}

fn sort_axis(list: u32, size: u32, start: u32, keys: u32, thread: u32) -> f32 {
  for (var n = thread; n < size; n += THREADS) {
    var entry = vec2<u32>(0xffffffffu, 0xffffffffu);
    if (n < keys) {
      entry = vec2<u32>(~order_key(logits[start + n]), n);
    }
    scratch[list + n] = entry;
  }
  storageBarrier();
  sort_list(list, size, thread);
  let best = key_value(~scratch[list].x);
  storageBarrier();
  for (var n = thread; n < keys; n += THREADS) {
    scratch[list + n].x = distance_bits(best, key_value(~scratch[list + n].x));
  }
  storageBarrier();
  return best;
}

fn count_in_row(distance: u32, list_y: u32, columns: u32, limit: u32) -> u32 {
  var low = 0u;
  var high = columns;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (sum_bits(distance, scratch[list_y + middle].x) <= limit) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return low;
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slot = workgroup_index(group, groups);
  if (slot >= params.count) {
    return;
  }
  let token = params.first + slot;
  let start = token * (params.keys_x + params.keys_y);
  let list_x = slot * params.token_words;
  let list_y = list_x + params.size_x;
  let list = list_y + params.size_y;
  let counts = list + params.size_k;
  let best_x = sort_axis(list_x, params.size_x, start, params.keys_x, thread);
  let best_y = sort_axis(list_y, params.size_y, start + params.keys_x, params.keys_y, thread);
  let rows = min(params.keys_x, params.top_k);
  let columns = min(params.keys_y, params.top_k);

  var low = 0u;
  var limit = OVERFLOWN;
  for (var bit = 0u; bit < 31u; bit++) {
    let middle = (low + limit) / 2u;
    if (thread == 0u) {
      atomicStore(&total, 0u);
    }
    workgroupBarrier();
    var own = 0u;
    for (var a = thread; a < rows; a += THREADS) {
      own += count_in_row(scratch[list_x + a].x, list_y, columns, middle);
    }
    atomicAdd(&total, own);
    workgroupBarrier();
    if (atomicLoad(&total) >= params.top_k) {
      limit = middle;
    } else {
      low = min(middle + 1u, limit);
    }
    workgroupBarrier();
  }

  let share = (rows + THREADS - 1u) / THREADS;
  let begin = min(thread * share, rows);
  let end = min(begin + share, rows);
  var own = vec2<u32>();
  for (var a = begin; a < end; a++) {
    let distance = scratch[list_x + a].x;
    let within = count_in_row(distance, list_y, columns, limit);
    var below = 0u;
    if (limit > 0u) {
      below = count_in_row(distance, list_y, columns, limit - 1u);
    }
    scratch[counts + a] = vec2<u32>(below, within - below);
    own += vec2<u32>(below, within - below);
  }
  shares[thread] = own;
  workgroupBarrier();
  var before = vec2<u32>();
  var all_below = 0u;
  for (var other = 0u; other < THREADS; other++) {
    if (other < thread) {
      before += shares[other];
    }
    all_below += shares[other].x;
  }
  let missing = params.top_k - all_below;
  for (var a = begin; a < end; a++) {
    let row = scratch[counts + a];
    let distance = scratch[list_x + a].x;
    for (var b = 0u; b < row.x; b++) {
      scratch[list + before.x + b] = vec2<u32>(sum_bits(distance, scratch[list_y + b].x), (a << 12u) | b);
    }
    for (var b = 0u; b < row.y && before.y + b < missing; b++) {
      scratch[list + all_below + before.y + b] = vec2<u32>(limit, (a << 12u) | (row.x + b));
    }
    before += row;
  }
  for (var n = params.top_k + thread; n < params.size_k; n += THREADS) {
    scratch[list + n] = vec2<u32>(0xffffffffu, 0xffffffffu);
  }
  storageBarrier();
  sort_list(list, params.size_k, thread);

  let logs = log_sums(start, params.keys_x, params.keys_y, best_x, best_y, thread);
  var sum = 0.0;
  if (params.normalize == 1u) {
    for (var n = thread; n < params.top_k; n += THREADS) {
      let pair = scratch[list + n].y;
      let x = bounded_distance(scratch[list_x + (pair >> 12u)].x);
      sum += exp_negative(x + bounded_distance(scratch[list_y + (pair & 4095u)].x));
    }
  }
  let norm = sum_over_threads(vec2<f32>(sum, 0.0), thread).x;
  for (var n = thread; n < params.top_k; n += THREADS) {
    let pair = scratch[list + n].y;
    let key_x = scratch[list_x + (pair >> 12u)];
    let key_y = scratch[list_y + (pair & 4095u)];
    let x = bounded_distance(key_x.x);
    let y = bounded_distance(key_y.x);
    var weight = 0.0;
    if (params.normalize == 1u) {
      weight = exp_negative(x + y) / norm;
    } else {
      weight = exp_negative((x + logs.x) + (y + logs.y));
    }
    ids[token * params.top_k + n] = i32(key_x.y * params.keys_y + key_y.y);
    weights[token * params.top_k + n] = select(NAN_BITS, bitcast<u32>(weight), logs.z == 1.0);
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}


fn order_key(bits: u32) -> u32 {
  var magnitude = bits & 0x7fffffffu;
  var negative = (bits >> 31u) == 1u;
  if (magnitude > 0x7f800000u) {
    negative = true;
  }
  magnitude = min(magnitude, 0x7f7fffffu);
  return select(magnitude | 0x80000000u, 0x7fffffffu - magnitude, negative && magnitude != 0u);
}

fn key_value(key: u32) -> f32 {
  return bitcast<f32>(select((0x7fffffffu - key) | 0x80000000u, key & 0x7fffffffu, key >= 0x80000000u));
}

const OVERFLOWN = 0x7f800000u;

fn distance_bits(best: f32, value: f32) -> u32 {
  if (0.5 * best - 0.5 * value >= 0x1p127f) {
    return OVERFLOWN;
  }
  return bitcast<u32>(best - value);
}

fn sum_bits(x: u32, y: u32) -> u32 {
  if (x == OVERFLOWN || y == OVERFLOWN) {
    return OVERFLOWN;
  }
  let a = bitcast<f32>(x);
  let b = bitcast<f32>(y);
  if (0.5 * a + 0.5 * b >= 0x1p127f) {
    return OVERFLOWN;
  }
  return bitcast<u32>(a + b);
}

fn bounded_distance(bits: u32) -> f32 {
  return min(bitcast<f32>(min(bits, 0x7f7fffffu)), 1e30);
}

fn exp_negative(distance: f32) -> f32 {
  return exp(-min(distance, 200.0));
}

const NAN_BITS = 0x7fc00000u;

override THREADS: u32 = 256u;
var<workgroup> own_sums: array<vec2<f32>, THREADS>;
var<workgroup> eight_sums: array<vec2<f32>, THREADS / 8u>;
var<workgroup> kinds: array<atomic<u32>, 2>;

fn kind(bits: u32) -> u32 {
  if (bits == 0xff800000u) {
    return 0u;
  }
  return select(1u, 2u, (bits & 0x7fffffffu) >= 0x7f800000u);
}

fn axis_part(axis: u32, start: u32, keys: u32, best: f32, thread: u32) -> f32 {
  var sum = 0.0;
  var seen = 0u;
  for (var key = thread; key < keys; key += THREADS) {
    let bits = logits[start + key];
    let own = kind(bits);
    seen |= own;
    if (own == 1u) {
      sum += exp_negative(bounded_distance(distance_bits(best, key_value(order_key(bits)))));
    }
  }
  atomicOr(&kinds[axis], seen);
  return sum;
}

fn log_sums(start: u32, keys_x: u32, keys_y: u32, best_x: f32, best_y: f32, thread: u32) -> vec3<f32> {
  if (thread < 2u) {
    atomicStore(&kinds[thread], 0u);
  }
  workgroupBarrier();
  let x = axis_part(0u, start, keys_x, best_x, thread);
  let y = axis_part(1u, start + keys_x, keys_y, best_y, thread);
  let sums = sum_over_threads(vec2<f32>(x, y), thread);
  let valid = atomicLoad(&kinds[0]) == 1u && atomicLoad(&kinds[1]) == 1u;
  return vec3<f32>(log(max(sums.x, 1.0)), log(max(sums.y, 1.0)), select(0.0, 1.0, valid));
}

fn sum_over_threads(value: vec2<f32>, thread: u32) -> vec2<f32> {
  own_sums[thread] = value;
  workgroupBarrier();
  if (thread < THREADS / 8u) {
    var sum = vec2<f32>();
    for (var n = 0u; n < 8u; n++) {
      sum += own_sums[thread * 8u + n];
    }
    eight_sums[thread] = sum;
  }
  workgroupBarrier();
  var sum = vec2<f32>();
  for (var n = 0u; n < THREADS / 8u; n++) {
    sum += eight_sums[n];
  }
  return sum;
}
