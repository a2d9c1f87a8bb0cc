import type { Activation, FloatDType } from "@flash-moe/core";
import {
  type Approximate,
  activate,
  activationSlope,
  addToStart,
  exact,
  matmul,
  multiply,
  rounded,
} from "./approximate.js";

export interface MlpNumbers {
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly activation: Activation;
  /** [T, H]. */
  readonly hiddenStates: Float64Array;
  /** [I, H]. */
  readonly gate: Float64Array;
  /** [I, H]. */
  readonly up: Float64Array;
  /** [H, I]. */
  readonly down: Float64Array;
  /** What the backend keeps tensors of [T, I] in, by its own account (`Capabilities.mlpIntermediate`). */
  readonly intermediate: FloatDType;
}

/** The MLP's output and its error in f32, with `addend` if there is one. */
export function mlpForwardApproximate(numbers: MlpNumbers, addend?: Float64Array): Approximate {
  const { tokens, hiddenSize, intermediateSize, down } = numbers;
  const { gated, linear } = projections(numbers);
  const hidden = rounded(multiply(activate(gated, numbers.activation), linear), numbers.intermediate);
  const output = matmul(hidden, exact(down), {
    rows: tokens,
    inner: intermediateSize,
    columns: hiddenSize,
    transposeB: true,
  });
  return addend === undefined ? output : addToStart(addend, output, intermediateSize);
}

export interface MlpBackwardApproximate {
  readonly gradHiddenStates: Approximate;
  readonly gradGate: Approximate;
  readonly gradUp: Approximate;
  readonly gradDown: Approximate;
}

/** All gradients and their errors in f32. */
export function mlpBackwardApproximate(
  numbers: MlpNumbers,
  gradOutput: Float64Array,
): MlpBackwardApproximate {
  const { tokens, hiddenSize, intermediateSize, activation, intermediate } = numbers;
  const { gated, linear } = projections(numbers);
  const activated = activate(gated, activation);
  const hidden = rounded(multiply(activated, linear), intermediate);
  const toIntermediate = { rows: tokens, inner: hiddenSize, columns: intermediateSize };
  const gradHidden = rounded(matmul(exact(gradOutput), exact(numbers.down), toIntermediate), intermediate);
  const gradGated = rounded(
    multiply(multiply(gradHidden, linear), activationSlope(gated, activation)),
    intermediate,
  );
  const gradLinear = rounded(multiply(gradHidden, activated), intermediate);
  const toWeight = { rows: intermediateSize, inner: tokens, columns: hiddenSize, transposeA: true };
  const states = exact(numbers.hiddenStates);
  return {
    gradHiddenStates: matmul(
      sideBySide(gradGated, gradLinear, intermediateSize),
      exact([...numbers.gate, ...numbers.up]),
      { rows: tokens, inner: 2 * intermediateSize, columns: hiddenSize },
    ),
    gradGate: matmul(gradGated, states, toWeight),
    gradUp: matmul(gradLinear, states, toWeight),
    gradDown: matmul(exact(gradOutput), hidden, {
      rows: hiddenSize,
      inner: tokens,
      columns: intermediateSize,
      transposeA: true,
    }),
  };
}

function projections(numbers: MlpNumbers): { gated: Approximate; linear: Approximate } {
  const { tokens, hiddenSize, intermediateSize, intermediate } = numbers;
  const shape = { rows: tokens, inner: hiddenSize, columns: intermediateSize, transposeB: true };
  const states = exact(numbers.hiddenStates);
  return {
    gated: rounded(matmul(states, exact(numbers.gate), shape), intermediate),
    linear: rounded(matmul(states, exact(numbers.up), shape), intermediate),
  };
}

/** [T, I] and [T, I] as [T, 2 I]: one sum of 2 I terms, in any order. */
function sideBySide(a: Approximate, b: Approximate, columns: number): Approximate {
  function join(left: Float64Array, right: Float64Array): Float64Array {
    const joined = new Float64Array(left.length + right.length);
    for (let n = 0; n < left.length; n++) {
      const row = Math.floor(n / columns) * 2 * columns;
      joined[row + (n % columns)] = left[n];
      joined[row + columns + (n % columns)] = right[n];
    }
    return joined;
  }
  return { values: join(a.values, b.values), errors: join(a.errors, b.errors) };
}
