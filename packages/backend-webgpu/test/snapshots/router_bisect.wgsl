// Purpose: the k best of X * Y pairs of keys and their routing weights, for any k, in one launch.
// Equation: as router_staircase.
// Shapes: logits [tokens, keys_x + keys_y], x keys first; ids and weights [tokens, top_k]; scratch for `count` tokens
//   from `first` on: sorted axes (size_x and size_y pairs), sorted pairs (size_k), two counts per x key.
// Parallelisation: a workgroup of THREADS per token. Both axes are sorted; the k-th best sum is found bit by bit, each
//   thread counting in its rows by binary search; the pairs within it are collected and sorted.
// Why: 31 counting passes of X log Y find the k best without looking at the X * Y sums. Along a row of ranks the sums
//   never rise, rounding being monotone, so a binary search counts exactly. The lists are in storage memory: 4,096
//   keys per axis do not fit 16 KiB of workgroup memory.
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

// Whether `a` comes after `b`: by the first number, then the second, both ascending.
fn is_after(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y > b.y);
}

// Bitonic: `size` is a power of two.
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

// Makes (distance bits, index) from best to worst; returns the best logit.
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

// How many of the y keys have, with this x distance, a sum up to `limit`.
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

  // The smallest `limit` within which there are k sums.
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

  // Below the limit all belong; at the limit the first by ranks, as many as are missing.
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
