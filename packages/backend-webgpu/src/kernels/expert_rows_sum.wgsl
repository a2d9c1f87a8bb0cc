// Purpose: the weighted sum of the rows of each token's experts: their output, or the gradient of the hidden states.
// Equation: output[t] (+)= addend[t] + sum_j c_j table[ids[t, j]], over the elements of the table in [low, high), with
//   c_j = act(dots[t, j]) weights[t, j] (ACTIVATE) or c_j = dots[t, j].
// Shapes: table the elements [low, high) of [experts, hidden]; ids, dots and weights [tokens, k]; addend and output
//   [tokens, hidden].
// Parallelisation: a workgroup makes up to 256 columns of one token: ACROSS threads, four columns each, and four deep,
//   each every fourth expert; the four sums are added in order.
// Why: rows are read once, whole vectors at a time, and summed in f32 registers, so that an output is rounded once.
//   Four deep, since one token with many experts would else wait for one row after the other.
// uses: grid activation

struct Params {
  tokens: u32,
  top_k: u32,
  hidden_size: u32,
  num_experts: u32,
  low: u32,
  high: u32,
  accumulate: u32,
  has_addend: u32,
  activation: u32,
}

override ACTIVATE: bool = false;
// Threads across: 8, 16, 32 or 64.
override ACROSS: u32 = 64u;
const DEPTH = 4u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<{{table}}>;
@group(0) @binding(2) var<storage, read> ids: array<i32>;
@group(0) @binding(3) var<storage, read> dots: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> addend: array<{{addend}}>;
@group(0) @binding(6) var<storage, read_write> output: array<{{output}}>;

var<workgroup> rows: array<i32, 4u * ACROSS>;
var<workgroup> coefficients: array<f32, 4u * ACROSS>;
var<workgroup> sums: array<vec4<f32>, 4u * ACROSS>;

@compute @workgroup_size(4u * ACROSS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.hidden_size + 4u * ACROSS - 1u) / (4u * ACROSS);
  let index = workgroup_index(group, groups);
  let token = index / slices;
  if (token >= params.tokens) {
    return;
  }
  let column = ((index % slices) * ACROSS + thread % ACROSS) * 4u;
  let depth = thread / ACROSS;
  var sum = vec4<f32>();
  for (var first = 0u; first < params.top_k; first += DEPTH * ACROSS) {
    if (first + thread < params.top_k) {
      let pair = token * params.top_k + first + thread;
      let id = ids[pair];
      let present = id >= 0 && u32(id) < params.num_experts;
      rows[thread] = select(-1, id, present);
      if (ACTIVATE) {
        coefficients[thread] = act(params.activation, dots[pair]) * weights[pair];
      } else {
        coefficients[thread] = dots[pair];
      }
    }
    workgroupBarrier();
    let experts = min(DEPTH * ACROSS, params.top_k - first);
    for (var n = depth; n < experts; n += DEPTH) {
      if (rows[n] >= 0 && column < params.hidden_size) {
        let row = u32(rows[n]) * params.hidden_size;
        let begin = clamp(params.low, row, row + params.hidden_size) - row;
        let end = clamp(params.high, row, row + params.hidden_size) - row;
        if (column >= begin && column < end) {
          sum += coefficients[n] * load4_table(row + column - params.low, end - column);
        } else if (column < begin && column + 4u > begin && end > begin) {
          // A window that begins inside these four columns.
          for (var q = begin - column; q < min(4u, end - column); q++) {
            sum[q] += coefficients[n] * load_table(row + column + q - params.low);
          }
        }
      }
    }
    workgroupBarrier();
  }
  sums[thread] = sum;
  workgroupBarrier();
  if (depth > 0u || column >= params.hidden_size) {
    return;
  }
  sum = ((sum + sums[thread + ACROSS]) + sums[thread + 2u * ACROSS]) + sums[thread + 3u * ACROSS];
  let at = token * params.hidden_size + column;
  let valid = params.hidden_size - column;
  if (params.has_addend == 1u) {
    sum += load4_addend(at, valid);
  }
  if (params.accumulate == 1u) {
    sum += load4_output(at, valid);
  }
  store4_output(at, sum, valid);
}
