// Purpose: the k best of X * Y pairs of keys and their routing weights, k <= 64, in one launch.
// Equation: s_ij = (lx[i] - max lx) + (ly[j] - max ly), each operation one f32 operation; the k best by (s descending,
//   rank of i, rank of j). Weight = exp(log_softmax(lx)[i] + log_softmax(ly)[j]), or exp(s) / sum exp(s) (normalize).
// Shapes: logits [tokens, keys_x + keys_y], x keys first; ids and weights [tokens, top_k].
// Parallelisation: a workgroup per token, of 64 threads or, for long axes, 256. Each axis is cut to its best
//   min(keys, k), ranked; thread c takes candidate pairs c, c + THREADS, ...
// Why: the pair at ranks (a, b), counted from 1, has a * b - 1 pairs before it, so only a * b <= k need be looked at:
//   280 for k = 64, whatever X * Y is. Ranking them by counting takes no barrier. Sums and logits are compared as
//   integers, so that ids are the same on every device.
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

// Of the axis that is being cut: order keys of a short one; digit counts and shares of the threads of a long one.
var<workgroup> work: array<u32, 256>;
var<workgroup> digits: array<atomic<u32>, 16>;
var<workgroup> taken: atomic<u32>;
var<workgroup> found_keys: array<u32, 64>;
var<workgroup> found_indices: array<u32, 64>;
// Both axes, ranked: 64 places for x, 64 for y.
var<workgroup> indices: array<u32, 128>;
var<workgroup> distances: array<u32, 128>;
var<workgroup> best: array<f32, 2>;
var<workgroup> sums: array<u32, 280>;
var<workgroup> pairs: array<u32, 280>;
var<workgroup> chosen: array<u32, 64>;

fn key_at(start: u32, key: u32) -> u32 {
  return order_key(logits[start + key]);
}

// At most 256 keys: each thread counts who comes before its own.
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

// More keys: the kept-th best is found digit by digit, then what is above it and the first of its equals are
// collected and ranked.
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
  // `prefix` is the kept-th best key, of which the first `wanted` belong.
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
    // Candidates are in the order of their ranks, so an equal sum comes before if its candidate does.
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
      // Relative to the largest, whose distances are 0.
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

// The index of a workgroup, whatever the grid was folded into: a dimension takes at most 65,535 of them.
fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}

// Logits as unsigned integers. Selection must be the same on every device, so it never asks a float whether it is
// infinite or NaN, and never computes one that is: a compiler may assume that neither occurs.

// Grows with the logit: infinities clamped to the largest finite numbers, NaN as the lowest, -0 as 0.
fn order_key(bits: u32) -> u32 {
  var magnitude = bits & 0x7fffffffu;
  var negative = (bits >> 31u) == 1u;
  if (magnitude > 0x7f800000u) {
    negative = true;
  }
  magnitude = min(magnitude, 0x7f7fffffu);
  return select(magnitude | 0x80000000u, 0x7fffffffu - magnitude, negative && magnitude != 0u);
}

// The logit that a key stands for.
fn key_value(key: u32) -> f32 {
  return bitcast<f32>(select((0x7fffffffu - key) | 0x80000000u, key & 0x7fffffffu, key >= 0x80000000u));
}

const OVERFLOWN = 0x7f800000u;

// The bits of best - value >= 0. Halves do not overflow, and from 2^127 on the whole is infinite.
fn distance_bits(best: f32, value: f32) -> u32 {
  if (0.5 * best - 0.5 * value >= 0x1p127f) {
    return OVERFLOWN;
  }
  return bitcast<u32>(best - value);
}

// The bits of x + y for the bits of x, y >= 0: the smaller, the better the pair.
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

// A distance as a number that exp and sums of a few can take: from 1e30 on, exp of its negative is 0 anyway.
fn bounded_distance(bits: u32) -> f32 {
  return min(bitcast<f32>(min(bits, 0x7f7fffffu)), 1e30);
}

fn exp_negative(distance: f32) -> f32 {
  return exp(-min(distance, 200.0));
}

const NAN_BITS = 0x7fc00000u;

// For each axis of a token: the logarithm of sum exp(l - max), and whether its log-softmax is a number at all.
// Every thread adds its keys in order, then eights of threads are added, then those. Needs `logits: array<u32>`.
override THREADS: u32 = 256u;
var<workgroup> own_sums: array<vec2<f32>, THREADS>;
var<workgroup> eight_sums: array<vec2<f32>, THREADS / 8u>;
var<workgroup> kinds: array<atomic<u32>, 2>;

// 1: a finite logit; 2: NaN or +infinity.
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

// x, y: log sums; z: 1 where the token's log-softmaxes are numbers.
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

// The sum of one value per thread. Begins and ends with no barrier: its two lists are written on either side of one.
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
