// uses: grid order log_sum

struct Params {
  tokens: u32,
  keys_x: u32,
  keys_y: u32,
  top_k: u32,
  normalize: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<i32>;
@group(0) @binding(3) var<storage, read_write> weights: array<u32>;

var<workgroup> work: array<u32, 256>;
var<workgroup> digits: array<atomic<u32>, 16>;
var<workgroup> taken: atomic<u32>;
var<workgroup> found_keys: array<u32, 64>;
var<workgroup> found_indices: array<u32, 64>;
var<workgroup> indices: array<u32, 128>;
var<workgroup> distances: array<u32, 128>;
var<workgroup> best: array<f32, 2>;
var<workgroup> sums: array<u32, 280>;
var<workgroup> pairs: array<u32, 280>;
var<workgroup> chosen: array<u32, 64>;

fn key_at(start: u32, key: u32) -> u32 {
  return order_key(logits[start + key]);
}

fn rank_short(start: u32, keys: u32, place: u32, kept: u32, thread: u32) {
  for (var n = thread; n < keys; n += THREADS) {
    work[n] = key_at(start, n);
  }
  workgroupBarrier();
  for (var n = thread; n < keys; n += THREADS) {
    let own = work[n];
    var rank = 0u;
    for (var other = 0u; other < keys; other++) {
      let key = work[other];
      rank += select(0u, 1u, key > own || (key == own && other < n));
    }
    if (rank < kept) {
      indices[place + rank] = n;
      found_keys[rank] = own;
    }
  }
  workgroupBarrier();
}

fn rank_long(start: u32, keys: u32, place: u32, kept: u32, thread: u32) {
  var prefix = 0u;
  var wanted = kept;
  for (var shift = 28u; shift < 32u; shift -= 4u) {
    if (thread < 16u) {
      atomicStore(&digits[thread], 0u);
    }
    workgroupBarrier();
    for (var n = thread; n < keys; n += THREADS) {
      let key = key_at(start, n);
      if (shift == 28u || (key >> (shift + 4u)) == (prefix >> (shift + 4u))) {
        atomicAdd(&digits[(key >> shift) & 15u], 1u);
      }
    }
    workgroupBarrier();
    var digit = 15u;
    for (; digit > 0u; digit--) {
      let count = atomicLoad(&digits[digit]);
      if (count >= wanted) {
        break;
      }
      wanted -= count;
    }
    prefix |= digit << shift;
    workgroupBarrier();
  }
  let share = (keys + THREADS - 1u) / THREADS;
  let begin = min(thread * share, keys);
  let end = min(begin + share, keys);
  var equal = 0u;
  for (var n = begin; n < end; n++) {
    equal += select(0u, 1u, key_at(start, n) == prefix);
  }
  work[thread] = equal;
  if (thread == 0u) {
    atomicStore(&taken, 0u);
  }
  workgroupBarrier();
  var before = 0u;
  for (var other = 0u; other < thread; other++) {
    before += work[other];
  }
  for (var n = begin; n < end; n++) {
    let key = key_at(start, n);
    if (key == prefix && before < wanted) {
      found_keys[kept - wanted + before] = key;
      found_indices[kept - wanted + before] = n;
      before++;
    } else if (key > prefix) {
      let at = atomicAdd(&taken, 1u);
      found_keys[at] = key;
      found_indices[at] = n;
    }
  }
  workgroupBarrier();
  var own = 0u;
  var rank = 64u;
  if (thread < kept) {
    own = found_keys[thread];
    let index = found_indices[thread];
    rank = 0u;
    for (var other = 0u; other < kept; other++) {
      let key = found_keys[other];
      rank += select(0u, 1u, key > own || (key == own && found_indices[other] < index));
    }
    indices[place + rank] = index;
  }
  workgroupBarrier();
  if (rank < 64u) {
    found_keys[rank] = own;
  }
  workgroupBarrier();
}

fn rank_axis(axis: u32, start: u32, keys: u32, kept: u32, thread: u32) {
  if (keys <= 256u) {
    rank_short(start, keys, 64u * axis, kept, thread);
  } else {
    rank_long(start, keys, 64u * axis, kept, thread);
  }
  let largest = key_value(found_keys[0]);
  if (thread < kept) {
    distances[64u * axis + thread] = distance_bits(largest, key_value(found_keys[thread]));
  }
  if (thread == 0u) {
    best[axis] = largest;
  }
  workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let token = workgroup_index(group, groups);
  if (token >= params.tokens) {
    return;
  }
  let start = token * (params.keys_x + params.keys_y);
  let rows = min(params.keys_x, params.top_k);
  let columns = min(params.keys_y, params.top_k);
  rank_axis(0u, start, params.keys_x, rows, thread);
  rank_axis(1u, start + params.keys_x, params.keys_y, columns, thread);

  var count = 0u;
  for (var a = 1u; a <= rows; a++) {
    count += min(columns, params.top_k / a);
  }
  for (var c = thread; c < count; c += THREADS) {
    var a = 1u;
    var b = c;
    var width = min(columns, params.top_k);
    while (b >= width) {
      b -= width;
      a++;
      width = min(columns, params.top_k / a);
    }
    sums[c] = sum_bits(distances[a - 1u], distances[64u + b]);
    pairs[c] = ((a - 1u) << 8u) | b;
  }
  workgroupBarrier();
  for (var c = thread; c < count; c += THREADS) {
    let sum = sums[c];
    let pair = pairs[c];
    var place = 0u;
    for (var other = 0u; other < count; other++) {
      let its = sums[other];
      place += select(0u, 1u, its < sum || (its == sum && other < c));
    }
    if (place < params.top_k) {
      chosen[place] = c;
      ids[token * params.top_k + place] =
        i32(indices[pair >> 8u] * params.keys_y + indices[64u + (pair & 255u)]);
    }
  }

  let logs = log_sums(start, params.keys_x, params.keys_y, best[0], best[1], thread);
  var weight = 0.0;
  if (thread < params.top_k) {
    let pair = pairs[chosen[thread]];
    let x = bounded_distance(distances[pair >> 8u]);
    let y = bounded_distance(distances[64u + (pair & 255u)]);
    if (params.normalize == 1u) {
      weight = exp_negative(x + y);
    } else {
      weight = exp_negative((x + logs.x) + (y + logs.y));
    }
  }
  if (params.normalize == 1u) {
    weight /= sum_over_threads(vec2<f32>(weight, 0.0), thread).x;
  }
  if (thread < params.top_k) {
    weights[token * params.top_k + thread] = select(NAN_BITS, bitcast<u32>(weight), logs.z == 1.0);
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
