import type { MlpBackwardCall, MlpForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { activationNumber, dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";

/** Tokens whose intermediates [tokens, I] exist at a time. */
const blockTokens = 512;

/** Elementwise kernels work on whole vectors. */
const padding = 16;

export function mlpForward(call: MlpForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, addend, output } = call;
  if (tokens === 0) return;
  const { kernels } = context;
  const block = Math.min(tokens, blockTokens);
  const encodes = output.dtype !== "f32";
  const gate = context.scratch(block * intermediateSize * 4 + padding);
  const up = context.scratch(block * intermediateSize * 4 + padding);
  const sums = encodes ? context.scratch(block * hiddenSize * 4) : 0;
  const multiply = takeMultiply(block, hiddenSize, intermediateSize, context);

  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    const size = count * hiddenSize;
    const x = { address: elementAddress(hiddenStates, start), dtype: dtypeNumber(hiddenStates) };
    const sum = encodes ? sums : elementAddress(output, start);
    multiply(count, hiddenSize, intermediateSize, x, weights(call.gate, true), gate, false);
    multiply(count, hiddenSize, intermediateSize, x, weights(call.up, true), up, false);
    kernels.mlpGate(count * intermediateSize, activationNumber(call.activation), gate, up);
    if (addend !== undefined) {
      kernels.convert(size, dtypeNumber(addend), elementAddress(addend, start), 0, sum);
    }
    const intermediate = { address: gate, dtype: 0 };
    multiply(
      count,
      intermediateSize,
      hiddenSize,
      intermediate,
      weights(call.down, true),
      sum,
      addend !== undefined,
    );
    if (encodes) kernels.convert(size, 0, sum, dtypeNumber(output), elementAddress(output, start));
  }
}

export function mlpBackward(call: MlpBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, gradOutput } = call;
  const { gradHiddenStates, gradGate, gradUp, gradDown } = call;
  const { kernels } = context;
  const accumulates = (name: "gradHiddenStates" | "gradGate" | "gradUp" | "gradDown"): boolean =>
    call.accumulate?.includes(name) ?? false;
  if (tokens === 0) {
    for (const name of ["gradGate", "gradUp", "gradDown"] as const) {
      const gradient = call[name];
      if (gradient !== undefined && !accumulates(name)) context.clear(gradient.address, gradient.length * 4);
    }
    return;
  }
  if (!(gradHiddenStates || gradGate || gradUp || gradDown)) return;
  const block = Math.min(tokens, blockTokens);
  const gate = context.scratch(block * intermediateSize * 4 + padding);
  const up = context.scratch(block * intermediateSize * 4 + padding);
  const dh = context.scratch(block * intermediateSize * 4 + padding);
  const multiply = takeMultiply(block, hiddenSize, intermediateSize, context);

  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    const x = { address: elementAddress(hiddenStates, start), dtype: dtypeNumber(hiddenStates) };
    const d = { address: elementAddress(gradOutput, start), dtype: dtypeNumber(gradOutput) };
    multiply(count, hiddenSize, intermediateSize, x, weights(call.gate, true), gate, false);
    multiply(count, hiddenSize, intermediateSize, x, weights(call.up, true), up, false);
    multiply(count, hiddenSize, intermediateSize, d, weights(call.down, false), dh, false);
    kernels.mlpGateBackward(count * intermediateSize, activationNumber(call.activation), gate, up, dh);
    const intermediate = { address: gate, dtype: 0 };
    const da = { address: up, dtype: 0 };
    const db = { address: dh, dtype: 0 };
    if (gradHiddenStates !== undefined) {
      const target = elementAddress(gradHiddenStates, start);
      const adds = accumulates("gradHiddenStates");
      multiply(count, intermediateSize, hiddenSize, da, weights(call.gate, false), target, adds);
      multiply(count, intermediateSize, hiddenSize, db, weights(call.up, false), target, true);
    }
    const sumsTokens = (name: "gradGate" | "gradUp" | "gradDown", left: Matrix, right: Matrix): void => {
      const gradient = call[name];
      if (gradient === undefined) return;
      const [rows, columns] =
        name === "gradDown" ? [hiddenSize, intermediateSize] : [intermediateSize, hiddenSize];
      const adds = accumulates(name) || token > 0;
      multiply(rows, count, columns, { ...left, transposed: true }, right, gradient.address, adds);
    };
    sumsTokens("gradDown", d, intermediate);
    sumsTokens("gradGate", da, x);
    sumsTokens("gradUp", db, x);
  }
}

interface Matrix {
  readonly address: number;
  /** As the kernels number it. */
  readonly dtype: number;
  readonly transposed?: boolean;
}

function weights(buffer: WasmBuffer, transposed: boolean): Matrix {
  return { address: buffer.address, dtype: dtypeNumber(buffer), transposed };
}

/** target [rows, columns] (+)= op(a) op(b). */
type Multiply = (
  rows: number,
  inner: number,
  columns: number,
  a: Matrix,
  b: Matrix,
  target: number,
  accumulate: boolean,
) => void;

/** Takes the scratch of the largest product whose sizes are among these three. */
function takeMultiply(
  tokens: number,
  hiddenSize: number,
  intermediateSize: number,
  { kernels, scratch }: OpContext,
): Multiply {
  const sizes = [
    [tokens, hiddenSize, intermediateSize],
    [tokens, intermediateSize, hiddenSize],
    [hiddenSize, tokens, intermediateSize],
    [intermediateSize, tokens, hiddenSize],
  ] as const;
  const address = scratch(Math.max(...sizes.map((shape) => kernels.matmulScratchBytes(...shape) >>> 0)));
  return (rows, inner, columns, a, b, target, accumulate) => {
    const { transposed: transposeA = false } = a;
    kernels.matmul(
      rows,
      inner,
      columns,
      a.dtype,
      a.address,
      transposeA ? rows : inner,
      transposeA,
      b.dtype,
      b.address,
      b.transposed ?? false,
      target,
      accumulate,
      0,
      0,
      address,
    );
  };
}
