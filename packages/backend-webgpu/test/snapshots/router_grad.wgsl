// uses: grid order log_sum report

struct Params {
  tokens: u32,
  keys_x: u32,
  keys_y: u32,
  top_k: u32,
  normalize: u32,
  accumulate: u32,
  slot: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read> ids: array<i32>;
@group(0) @binding(3) var<storage, read> grad_weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> grad_logits: array<u32>;
@group(0) @binding(5) var<storage, read_write> errors: array<atomic<u32>>;

const CHUNK = 1024u;
const ABSENT = -1.0;

var<workgroup> bests: array<atomic<u32>, 2>;
var<workgroup> smallest: atomic<u32>;
var<workgroup> found: atomic<u32>;
var<workgroup> keys_of: array<u32, 1024>;
var<workgroup> gradients: array<f32, 1024>;

fn pair_distance(start: u32, pair: u32, best_x: f32, best_y: f32) -> f32 {
  let id = ids[pair];
  if (id < 0 || u32(id) >= params.keys_x * params.keys_y) {
    return ABSENT;
  }
  let i = u32(id) / params.keys_y;
  let j = u32(id) % params.keys_y;
  let x = distance_bits(best_x, key_value(order_key(logits[start + i])));
  let y = distance_bits(best_y, key_value(order_key(logits[start + params.keys_x + j])));
  return bounded_distance(x) + bounded_distance(y);
}

fn is_above_minus_infinity(start: u32, pair: u32) -> bool {
  let i = u32(ids[pair]) / params.keys_y;
  let j = u32(ids[pair]) % params.keys_y;
  return logits[start + i] != 0xff800000u && logits[start + params.keys_x + j] != 0xff800000u;
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
  let keys = params.keys_x + params.keys_y;
  let start = token * keys;
  let first_pair = token * params.top_k;
  if (thread < 2u) {
    atomicStore(&bests[thread], 0u);
  }
  if (thread == 0u) {
    atomicStore(&smallest, 0xffffffffu);
    atomicStore(&found, 0u);
  }
  workgroupBarrier();
  var own_best = vec2<u32>();
  for (var key = thread; key < keys; key += THREADS) {
    let axis = select(0u, 1u, key >= params.keys_x);
    own_best[axis] = max(own_best[axis], order_key(logits[start + key]));
  }
  atomicMax(&bests[0], own_best.x);
  atomicMax(&bests[1], own_best.y);
  workgroupBarrier();
  let best_x = key_value(atomicLoad(&bests[0]));
  let best_y = key_value(atomicLoad(&bests[1]));
  let logs = log_sums(start, params.keys_x, params.keys_y, best_x, best_y, thread);

  var own_smallest = 0xffffffffu;
  var own_found = 0u;
  for (var n = thread; n < params.top_k; n += THREADS) {
    let distance = pair_distance(start, first_pair + n, best_x, best_y);
    if (distance == ABSENT) {
      report(params.slot, first_pair + n, bitcast<u32>(ids[first_pair + n]));
    } else {
      own_smallest = min(own_smallest, bitcast<u32>(distance));
      own_found |= select(2u, 3u, is_above_minus_infinity(start, first_pair + n));
    }
  }
  atomicMin(&smallest, own_smallest);
  atomicOr(&found, own_found);
  workgroupBarrier();
  var shift = -(logs.x + logs.y);
  if (params.normalize == 1u) {
    shift = bitcast<f32>(min(atomicLoad(&smallest), 0x7f7fffffu));
  }
  var own_pair_sums = vec2<f32>();
  if (params.normalize == 1u) {
    for (var n = thread; n < params.top_k; n += THREADS) {
      let distance = pair_distance(start, first_pair + n, best_x, best_y);
      if (distance != ABSENT) {
        let weight = exp_negative(distance - shift);
        own_pair_sums += vec2<f32>(weight, weight * grad_weights[first_pair + n]);
      }
    }
  }
  let weighted_sums = sum_over_threads(own_pair_sums, thread);
  let norm = weighted_sums.x;
  let weighted = weighted_sums.y;
  var factor = 1.0;
  var mean = 0.0;
  if (params.normalize == 1u && norm > 0.0) {
    factor = 1.0 / norm;
    mean = weighted / norm;
  }

  var own_total = 0.0;
  for (var begin = 0u; begin < params.top_k; begin += CHUNK) {
    let pairs = min(CHUNK, params.top_k - begin);
    workgroupBarrier();
    for (var n = thread; n < pairs; n += THREADS) {
      let pair = first_pair + begin + n;
      let distance = pair_distance(start, pair, best_x, best_y);
      var gradient = 0.0;
      var key = 0xffffffffu;
      if (distance != ABSENT) {
        let weight = exp_negative(distance - shift) * factor;
        gradient = weight * (grad_weights[pair] - mean);
        let id = u32(ids[pair]);
        key = ((id / params.keys_y) << 16u) | (id % params.keys_y);
      }
      keys_of[n] = key;
      gradients[n] = gradient;
      own_total += gradient;
    }
    workgroupBarrier();
    for (var key = thread; key < keys; key += THREADS) {
      var sum = 0.0;
      if (begin > 0u || params.accumulate == 1u) {
        sum = bitcast<f32>(grad_logits[start + key]);
      }
      let is_x = key < params.keys_x;
      let index = select(key - params.keys_x, key, is_x);
      for (var n = 0u; n < pairs; n++) {
        let its = keys_of[n];
        if (select(its & 0xffffu, its >> 16u, is_x) == index) {
          sum += gradients[n];
        }
      }
      grad_logits[start + key] = bitcast<u32>(sum);
    }
  }
  let valid = logs.z == 1.0 && (params.normalize == 0u || atomicLoad(&found) != 2u);
  let total = sum_over_threads(vec2<f32>(own_total, 0.0), thread).x;
  for (var key = thread; key < keys; key += THREADS) {
    let is_x = key < params.keys_x;
    let best = select(best_y, best_x, is_x);
    let log_sum = select(logs.y, logs.x, is_x);
    let distance = bounded_distance(distance_bits(best, key_value(order_key(logits[start + key]))));
    let gradient = bitcast<f32>(grad_logits[start + key]) - exp_negative(distance + log_sum) * total;
    grad_logits[start + key] = select(NAN_BITS, bitcast<u32>(gradient), valid);
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
