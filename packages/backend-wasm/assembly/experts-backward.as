// The atomic experts, backward, in two parts. First token by token, as in the forward: with d = gradOutput[t] and the
// k rows of each table,
//
//     a_j = x . down[id_j]                q_j = d . up[id_j]
//     gradWeights[j] = act(a_j) q_j       c_j = w_j act'(a_j) q_j        s_j = act(a_j) w_j
//     gradHiddenStates[t] = sum over j of c_j down[id_j]
//
// Then expert by expert, over the pairs that use it (see expert-groups), in the order of (token, slot):
//
//     gradDown[e] = sum of c x[t]         gradUp[e] = sum of s d[t]
//
// so that each row of a gradient is written once, by no more than its own pairs, and rows that are not used cost
// nothing. Long sums are cut every 256 pairs and the pieces added in order.

import { activateRow, activationSlopeRow } from "./activation";
import { addRows, dotRows, expertsScratchBytes, firstWrong, gather, listRows, lists, touchRows } from "./experts-forward";
import { addFourRows, addRow } from "./rows";
import { F16, F32 } from "./simd";
import { partLength } from "./tasks";

const segment: usize = 256;

function backwardOf<T>(
  tokens: usize,
  hiddenSize: usize,
  numExperts: u32,
  topK: usize,
  activation: i32,
  x: usize,
  down: usize,
  up: usize,
  ids: usize,
  weights: usize,
  gradOutput: usize,
  gradHiddenStates: usize,
  accumulateStates: bool,
  gradWeights: usize,
  accumulateWeights: bool,
  downCoefficients: usize,
  upCoefficients: usize,
  scratch: usize,
): i32 {
  const list = (topK + 3) * 4;
  const slots = scratch;
  const rows = slots + list;
  const a = rows + list;
  const q = a + list;
  const w = q + list;
  const values = w + list;
  const sums = scratch + lists * list + 2 * hiddenSize * 4;
  let wrong: i32 = -1;
  for (let t: usize = 0; t < tokens; t++) {
    const count = listRows(topK, numExperts, ids, slots, rows);
    if (count < topK) {
      if (wrong < 0) wrong = <i32>(t * topK) + firstWrong(topK, numExperts, ids);
      if (gradWeights != 0 && !accumulateWeights) memory.fill(gradWeights, 0, topK * 4);
    }
    touchRows<T>(count, hiddenSize, down, rows, a);
    touchRows<T>(count, hiddenSize, up, rows, a);
    dotRows<T>(count, hiddenSize, x, down, rows, a, sums);
    dotRows<T>(count, hiddenSize, gradOutput, up, rows, q, sums);
    gather(count, slots, weights, w);
    activateRow(activation, count, a, values);
    activationSlopeRow(activation, count, a, a);
    for (let n: usize = 0; n < count; n += 4) {
      const at = n * 4;
      const value = v128.load(values + at);
      const slope = v128.load(a + at);
      const weight = v128.load(w + at);
      const dot = v128.load(q + at);
      v128.store(a + at, f32x4.mul(value, weight)); // s
      v128.store(w + at, f32x4.mul(f32x4.mul(weight, slope), dot)); // c
      v128.store(q + at, f32x4.mul(value, dot));
    }
    if (gradHiddenStates != 0) {
      if (!accumulateStates) memory.fill(gradHiddenStates, 0, hiddenSize * 4);
      addRows<T>(count, hiddenSize, down, rows, w, gradHiddenStates);
      gradHiddenStates += hiddenSize * 4;
    }
    if (gradWeights != 0) {
      for (let n: usize = 0; n < count; n++) {
        const to = gradWeights + load<u32>(slots + n * 4) * 4;
        const gradient = load<f32>(q + n * 4);
        store<f32>(to, accumulateWeights ? load<f32>(to) + gradient : gradient);
      }
      gradWeights += topK * 4;
    }
    if (downCoefficients != 0) {
      for (let n: usize = 0; n < count; n++) {
        const to = load<u32>(slots + n * 4) * 4;
        store<f32>(downCoefficients + to, load<f32>(w + n * 4));
        store<f32>(upCoefficients + to, load<f32>(a + n * 4));
      }
      downCoefficients += topK * 4;
      upCoefficients += topK * 4;
    }
    x += hiddenSize * 4;
    gradOutput += hiddenSize * 4;
    ids += topK * 4;
    weights += topK * 4;
  }
  return wrong;
}

/**
 * The first part. x and `gradOutput` [T, H] in f32, the tables [N, H] in `dtype`, `ids` [T, k] i32, `weights` [T, k]
 * f32. Outputs, each absent where it is 0: `gradHiddenStates` [T, H]; `gradWeights` [T, k]; the coefficients c and s
 * [T, k] (both or neither). A part is `perTask` tokens. Returns the number of the first id of the part that is not
 * below N, or -1.
 */
export function expertsBackward(
  dtype: i32,
  tokens: usize,
  hiddenSize: usize,
  numExperts: u32,
  topK: usize,
  activation: i32,
  x: usize,
  down: usize,
  up: usize,
  ids: usize,
  weights: usize,
  gradOutput: usize,
  gradHiddenStates: usize,
  accumulateStates: bool,
  gradWeights: usize,
  accumulateWeights: bool,
  downCoefficients: usize,
  upCoefficients: usize,
  perTask: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): i32 {
  const first = task * perTask;
  const count = partLength(tokens, perTask, task);
  const states = first * hiddenSize * 4;
  const pairs = first * topK * 4;
  scratch += thread * expertsScratchBytes(topK, hiddenSize);
  x += states;
  ids += pairs;
  weights += pairs;
  gradOutput += states;
  if (gradHiddenStates != 0) gradHiddenStates += states;
  if (gradWeights != 0) gradWeights += pairs;
  if (downCoefficients != 0) {
    downCoefficients += pairs;
    upCoefficients += pairs;
  }
  let wrong: i32;
  if (dtype == F32) {
    wrong = backwardOf<f32>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, gradOutput, gradHiddenStates,
      accumulateStates, gradWeights, accumulateWeights, downCoefficients, upCoefficients, scratch,
    );
  } else if (dtype == F16) {
    wrong = backwardOf<u16>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, gradOutput, gradHiddenStates,
      accumulateStates, gradWeights, accumulateWeights, downCoefficients, upCoefficients, scratch,
    );
  } else {
    wrong = backwardOf<i16>(
      count, hiddenSize, numExperts, topK, activation, x, down, up, ids, weights, gradOutput, gradHiddenStates,
      accumulateStates, gradWeights, accumulateWeights, downCoefficients, upCoefficients, scratch,
    );
  }
  return wrong < 0 ? -1 : wrong + <i32>(first * topK);
}

@inline
function stateOf(pairs: usize, p: usize, topK: u32, states: usize, hiddenSize: usize): usize {
  return states + (load<u32>(pairs + p * 4) / topK) * hiddenSize * 4;
}

@inline
function coefficientOf(pairs: usize, p: usize, coefficients: usize): f32 {
  return load<f32>(coefficients + load<u32>(pairs + p * 4) * 4);
}

/** target += sum over the pairs from `p` up to `end` of coefficient * state. */
function addPairs(
  hiddenSize: usize,
  topK: u32,
  states: usize,
  coefficients: usize,
  pairs: usize,
  p: usize,
  end: usize,
  target: usize,
): void {
  for (; p + 4 <= end; p += 4) {
    addFourRows<f32>(
      hiddenSize,
      target,
      stateOf(pairs, p, topK, states, hiddenSize),
      stateOf(pairs, p + 1, topK, states, hiddenSize),
      stateOf(pairs, p + 2, topK, states, hiddenSize),
      stateOf(pairs, p + 3, topK, states, hiddenSize),
      coefficientOf(pairs, p, coefficients),
      coefficientOf(pairs, p + 1, coefficients),
      coefficientOf(pairs, p + 2, coefficients),
      coefficientOf(pairs, p + 3, coefficients),
    );
  }
  for (; p < end; p++) {
    addRow<f32>(
      hiddenSize,
      target,
      stateOf(pairs, p, topK, states, hiddenSize),
      coefficientOf(pairs, p, coefficients),
    );
  }
}

/** The first of `rows` rows whose pairs begin at `pair` or later. */
function firstRowFrom(pair: u32, rows: usize, starts: usize): usize {
  let low: usize = 0;
  let high = rows;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(starts + middle * 4) < pair) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The second part: row r of what `groupPairs` found goes to row r of the gradients (f32), or with `dense` to row
 * used[r]. `rows`: where the number of rows is. The first half of the parts is for the table down, with x as its states
 * (f32 [T, H]), the second for up, with gradOutput; where one of the gradients is 0, all are for the other. A part is
 * the rows whose pairs begin among its `perTask` pairs; `tasksPerTable` make up a table. `scratch`: f32 [H] for each
 * thread.
 */
export function expertsTableGradient(
  hiddenSize: usize,
  topK: u32,
  x: usize,
  downCoefficients: usize,
  gradDown: usize,
  gradOutput: usize,
  upCoefficients: usize,
  gradUp: usize,
  pairs: usize,
  used: usize,
  starts: usize,
  rows: usize,
  dense: bool,
  accumulate: bool,
  perTask: usize,
  tasksPerTable: usize,
  scratch: usize,
  task: usize,
  thread: usize,
): void {
  const isUp = gradDown == 0 || task >= tasksPerTable;
  const states = isUp ? gradOutput : x;
  const coefficients = isUp ? upCoefficients : downCoefficients;
  const gradient = isUp ? gradUp : gradDown;
  task %= tasksPerTable;
  const rowBytes = hiddenSize * 4;
  const sum = scratch + thread * rowBytes;
  const count: usize = load<u32>(rows);
  const first = firstRowFrom(<u32>(task * perTask), count, starts);
  const last = firstRowFrom(<u32>((task + 1) * perTask), count, starts);
  for (let r = first; r < last; r++) {
    const target = gradient + (dense ? <usize>load<u32>(used + r * 4) : r) * rowBytes;
    let p: usize = load<u32>(starts + r * 4);
    const end: usize = load<u32>(starts + r * 4, 4);
    if (!accumulate) {
      const cut = p + segment < end ? p + segment : end;
      memory.fill(target, 0, rowBytes);
      addPairs(hiddenSize, topK, states, coefficients, pairs, p, cut, target);
      p = cut;
    }
    while (p < end) {
      const next = p + segment < end ? p + segment : end;
      memory.fill(sum, 0, rowBytes);
      addPairs(hiddenSize, topK, states, coefficients, pairs, p, next, sum);
      addRow<f32>(hiddenSize, target, sum, 1);
      p = next;
    }
  }
}
