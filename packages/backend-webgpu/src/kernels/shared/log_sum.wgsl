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
