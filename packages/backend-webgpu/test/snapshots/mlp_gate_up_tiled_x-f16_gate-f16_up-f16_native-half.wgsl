enable f16;
// uses: grid activation

struct Params {
  tokens: u32,
  hidden_size: u32,
  intermediate_size: u32,
  activation: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f16>;
@group(0) @binding(2) var<storage, read> gate: array<f16>;
@group(0) @binding(3) var<storage, read> up: array<f16>;
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

const TILE = 64u;
const DEPTH = 16u;
const STRIDE = 65u;

var<workgroup> tile_x: array<f32, 1040>;
var<workgroup> tile_gate: array<f32, 1040>;
var<workgroup> tile_up: array<f32, 1040>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let tiles_across = (params.intermediate_size + TILE - 1u) / TILE;
  let index = workgroup_index(group, groups);
  let first_token = (index / tiles_across) * TILE;
  let first_unit = (index % tiles_across) * TILE;
  let row = (thread / 16u) * 4u;
  let column = (thread % 16u) * 4u;
  var gated: array<vec4<f32>, 4>;
  var linear: array<vec4<f32>, 4>;
  for (var first = 0u; first < params.hidden_size; first += DEPTH) {
    let line = thread / 4u;
    let h = (thread % 4u) * 4u;
    var values = vec4<f32>();
    var gates = vec4<f32>();
    var ups = vec4<f32>();
    if (first + h < params.hidden_size) {
      let valid = params.hidden_size - first - h;
      if (first_token + line < params.tokens) {
        values = load4_x((first_token + line) * params.hidden_size + first + h, valid);
      }
      if (first_unit + line < params.intermediate_size) {
        let at = (first_unit + line) * params.hidden_size + first + h;
        gates = load4_gate(at, valid);
        ups = load4_up(at, valid);
      }
    }
    let place = h * STRIDE + line;
    tile_x[place] = values.x;
    tile_x[place + STRIDE] = values.y;
    tile_x[place + 2u * STRIDE] = values.z;
    tile_x[place + 3u * STRIDE] = values.w;
    tile_gate[place] = gates.x;
    tile_gate[place + STRIDE] = gates.y;
    tile_gate[place + 2u * STRIDE] = gates.z;
    tile_gate[place + 3u * STRIDE] = gates.w;
    tile_up[place] = ups.x;
    tile_up[place + STRIDE] = ups.y;
    tile_up[place + 2u * STRIDE] = ups.z;
    tile_up[place + 3u * STRIDE] = ups.w;
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
      let at = k * STRIDE + column;
      let g = vec4<f32>(tile_gate[at], tile_gate[at + 1u], tile_gate[at + 2u], tile_gate[at + 3u]);
      let u = vec4<f32>(tile_up[at], tile_up[at + 1u], tile_up[at + 2u], tile_up[at + 3u]);
      let from_row = k * STRIDE + row;
      let t = vec4<f32>(tile_x[from_row], tile_x[from_row + 1u], tile_x[from_row + 2u], tile_x[from_row + 3u]);
      gated[0] += t.x * g;
      gated[1] += t.y * g;
      gated[2] += t.z * g;
      gated[3] += t.w * g;
      linear[0] += t.x * u;
      linear[1] += t.y * u;
      linear[2] += t.z * u;
      linear[3] += t.w * u;
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    let t = first_token + row + r;
    for (var q = 0u; q < 4u; q++) {
      let i = first_unit + column + q;
      if (t < params.tokens && i < params.intermediate_size) {
        hidden[t * params.intermediate_size + i] = act(params.activation, gated[r][q]) * linear[r][q];
      }
    }
  }
}

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
  return group.y * groups.x + group.x;
}


fn sigmoid(x: f32) -> f32 {
  let e = exp(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn normal_distribution(x: f32) -> f32 {
  let z = min(abs(x) * 0.70710678, 12.0);
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  let tail = 0.5 * series * exp(-z * z);
  return select(tail, 1.0 - tail, x >= 0.0);
}

fn tanh_argument(x: f32) -> f32 {
  let c = clamp(x, -30.0, 30.0);
  return 1.5957691 * (c + 0.044715 * c * c * c);
}

fn act(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: { return x * normal_distribution(x); }
    case 2u: { return x * sigmoid(tanh_argument(x)); }
    case 3u: { return max(x, 0.0); }
    default: { return x * sigmoid(x); }
  }
}

fn act_slope(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: {
      let c = clamp(x, -20.0, 20.0);
      return normal_distribution(x) + c * exp(-0.5 * c * c) * 0.39894228;
    }
    case 2u: {
      let c = clamp(x, -30.0, 30.0);
      let s = sigmoid(tanh_argument(x));
      return s + c * s * (1.0 - s) * 1.5957691 * (1.0 + 0.134145 * c * c);
    }
    case 3u: { return select(0.0, 1.0, x > 0.0); }
    default: {
      let s = sigmoid(x);
      return s + clamp(x, -200.0, 200.0) * s * (1.0 - s);
    }
  }
}

fn load_x(i: u32) -> f32 {
  return f32(x[i]);
}
fn load4_x(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_x(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_x(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_x(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_x(i + 3u);
  }
  return values;
}
fn load_gate(i: u32) -> f32 {
  return f32(gate[i]);
}
fn load4_gate(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_gate(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_gate(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_gate(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_gate(i + 3u);
  }
  return values;
}
fn load_up(i: u32) -> f32 {
  return f32(up[i]);
}
fn load4_up(i: u32, valid: u32) -> vec4<f32> {
  var values = vec4<f32>(load_up(i), 0.0, 0.0, 0.0);
  if (valid > 1u) {
    values.y = load_up(i + 1u);
  }
  if (valid > 2u) {
    values.z = load_up(i + 2u);
  }
  if (valid > 3u) {
    values.w = load_up(i + 3u);
  }
  return values;
}