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
@group(0) @binding(1) var<storage, read> states: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> table: array<vec2<u32>>;
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

fn decode_f16(word: u32) -> vec2<f32> {
  return unpack2x16float(word);
}

fn decode_bf16(word: u32) -> vec2<f32> {
  return vec2<f32>(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u));
}

fn encode_f16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return sign | 0x7e00u | ((magnitude >> 13u) & 0x1ffu);
  }
  if (magnitude >= 0x477ff000u) {
    return sign | 0x7c00u;
  }
  if (magnitude >= 0x38800000u) {
    let rebased = magnitude - 0x38000000u;
    return sign | ((rebased + 0xfffu + ((rebased >> 13u) & 1u)) >> 13u);
  }
  if (magnitude <= 0x33000000u) {
    return sign;
  }
  let shift = 126u - (magnitude >> 23u);
  let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  let kept = mantissa >> shift;
  let half = 1u << (shift - 1u);
  let rest = mantissa & ((1u << shift) - 1u);
  return sign | (kept + select(0u, 1u, rest > half || (rest == half && (kept & 1u) == 1u)));
}

fn encode_bf16(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return (bits >> 16u) | 0x40u;
  }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

fn load_states(i: u32) -> f32 {
  return decode_bf16(states[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_states(i: u32, valid: u32) -> vec4<f32> {
  let words = states[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
}
fn load_table(i: u32) -> f32 {
  return decode_bf16(table[i >> 2u][(i >> 1u) & 1u])[i & 1u];
}
fn load4_table(i: u32, valid: u32) -> vec4<f32> {
  let words = table[i >> 2u];
  return vec4<f32>(decode_bf16(words.x), decode_bf16(words.y));
}