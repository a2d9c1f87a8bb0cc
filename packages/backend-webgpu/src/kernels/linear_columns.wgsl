// Purpose: the matrix product of few rows by a matrix that is not transposed: the gradient of few tokens by a weight.
// Equation: output[m, n] (+)= sum_k a[m, k] b[k, n].
// Shapes: a [rows, inner], b [inner, columns], output [rows, columns] in f32.
// Parallelisation: a workgroup of 128 makes 32 columns of up to four rows: eight threads take four columns each, in 16
//   lanes, each every 16th of the inner sum. Then a thread adds, in order, what the lanes have for one element.
// Why: the cost is reading b once. A tile would leave all but `rows` of its 64 rows idle, and have one workgroup walk the
//   whole inner dimension for 64 columns; here twice as many workgroups each read 16 rows of b at a time.
// uses: grid

struct Params {
  rows: u32,
  inner: u32,
  columns: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<{{a}}>;
@group(0) @binding(2) var<storage, read> b: array<{{b}}>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

const ROWS = 4u;
const LANES = 16u;
const WIDTH = 32u;

// [lanes, rows, columns of the workgroup]
var<workgroup> partial: array<f32, 2048>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let slices = (params.columns + WIDTH - 1u) / WIDTH;
  let index = workgroup_index(group, groups);
  let first_row = (index / slices) * ROWS;
  let first_column = (index % slices) * WIDTH;
  let rows = min(ROWS, max(params.rows, first_row) - first_row);
  let lane = thread / 8u;
  let own = (thread % 8u) * 4u;
  let column = first_column + own;
  var sums: array<vec4<f32>, 4>;
  if (column < params.columns) {
    let valid = params.columns - column;
    for (var k = lane; k < params.inner; k += LANES) {
      let values = load4_b(k * params.columns + column, valid);
      for (var r = 0u; r < rows; r++) {
        sums[r] += load_a((first_row + r) * params.inner + k) * values;
      }
    }
  }
  for (var r = 0u; r < rows; r++) {
    for (var q = 0u; q < 4u; q++) {
      partial[(lane * ROWS + r) * WIDTH + own + q] = sums[r][q];
    }
  }
  workgroupBarrier();
  let row = thread / WIDTH;
  let n = first_column + thread % WIDTH;
  if (row >= rows || n >= params.columns) {
    return;
  }
  var sum = 0.0;
  for (var l = 0u; l < LANES; l++) {
    sum += partial[l * ROWS * WIDTH + thread];
  }
  let at = (first_row + row) * params.columns + n;
  if (params.accumulate == 1u) {
    output[at] += sum;
  } else {
    output[at] = sum;
  }
}
