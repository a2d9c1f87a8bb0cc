import type { MlpBackwardCall, MlpForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { activationTime, productBlocks, productTime } from "../partition.js";
import { activationNumber, dtypeNumber, elementAddress, type WasmBuffer } from "../wasm-buffer.js";

/** Tokens whose intermediates [tokens, I] exist at a time. */
const blockTokens = 512;

export function mlpForward(call: MlpForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, addend, output } = call;
  if (tokens === 0) return;
  const block = Math.min(tokens, blockTokens);
  const hidden = context.scratch(block * intermediateSize * 4);
  const multiply = takeMultiply(context);
  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    hiddenStep(call, count, elementAddress(hiddenStates, start), { hidden }, context);
    multiply(
      [count, intermediateSize, hiddenSize],
      { address: hidden, dtype: 0 },
      matrix(call.down, true),
      { address: elementAddress(output, start), dtype: dtypeNumber(output) },
      addend && { address: elementAddress(addend, start), dtype: dtypeNumber(addend) },
    );
  }
}

export function mlpBackward(call: MlpBackwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, gradOutput } = call;
  const { gradHiddenStates, gradGate, gradUp, gradDown } = call;
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
  const bytes = block * intermediateSize * 4;
  const [hidden, dGate, dUp] = [context.scratch(bytes), context.scratch(bytes), context.scratch(bytes)];
  const multiply = takeMultiply(context);

  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    const x = { address: elementAddress(hiddenStates, start), dtype: dtypeNumber(hiddenStates) };
    const d = { address: elementAddress(gradOutput, start), dtype: dtypeNumber(gradOutput) };
    const gradients = { gradOutput: d.address, down: call.down.address, dGate, dUp };
    hiddenStep(call, count, x.address, { hidden, ...gradients }, context);
    const [h, da, db] = [hidden, dGate, dUp].map((address) => ({ address, dtype: 0 }));
    if (gradHiddenStates !== undefined) {
      const sizes = [count, intermediateSize, hiddenSize] as const;
      const target = { address: elementAddress(gradHiddenStates, start), dtype: 0 };
      multiply(sizes, da, matrix(call.gate, false), target, undefined, accumulates("gradHiddenStates"));
      multiply(sizes, db, matrix(call.up, false), target, undefined, true);
    }
    const sumTokens = (name: "gradGate" | "gradUp" | "gradDown", left: Matrix, right: Matrix): void => {
      const gradient = call[name];
      if (gradient === undefined) return;
      const [rows, columns] =
        name === "gradDown" ? [hiddenSize, intermediateSize] : [intermediateSize, hiddenSize];
      const adds = accumulates(name) || token > 0;
      const target = { address: gradient.address, dtype: 0 };
      multiply([rows, count, columns], { ...left, transposed: true }, right, target, undefined, adds);
    };
    sumTokens("gradDown", d, h);
    sumTokens("gradGate", da, x);
    sumTokens("gradUp", db, x);
  }
}

/** Where `mlpHidden` puts what it makes, and what it takes for the backward. */
interface HiddenStep {
  readonly hidden: number;
  readonly gradOutput?: number;
  readonly down?: number;
  readonly dGate?: number;
  readonly dUp?: number;
}

function hiddenStep(
  call: MlpForwardCall<WasmBuffer> | MlpBackwardCall<WasmBuffer>,
  tokens: number,
  x: number,
  { hidden, gradOutput = 0, down = 0, dGate = 0, dUp = 0 }: HiddenStep,
  context: OpContext,
): void {
  const { hiddenSize, intermediateSize } = call;
  const products = gradOutput === 0 ? 2 : 3;
  const blocks = productBlocks(tokens, hiddenSize, intermediateSize, products);
  const scratchBytes = context.sizes.mlpScratchBytes(blocks.rows, hiddenSize, blocks.columns, products) >>> 0;
  const time =
    products * productTime(tokens, hiddenSize, intermediateSize) +
    (products - 1) * activationTime * tokens * intermediateSize;
  context.step("mlpHidden", blocks.tasks, time, [
    tokens,
    hiddenSize,
    intermediateSize,
    activationNumber(call.activation),
    dtypeNumber(call.gate),
    x,
    call.gate.address,
    call.up.address,
    hidden,
    gradOutput,
    down,
    dGate,
    dUp,
    blocks.rows,
    blocks.columns,
    context.threadScratch(scratchBytes),
    scratchBytes,
  ]);
}

interface Matrix {
  readonly address: number;
  /** As the kernels number it. */
  readonly dtype: number;
  readonly transposed?: boolean;
}

function matrix(buffer: WasmBuffer, transposed: boolean): Matrix {
  return { address: buffer.address, dtype: dtypeNumber(buffer), transposed };
}

/** A step target [rows, columns] (+)= addend + op(a) op(b), summed over `inner`. */
type Multiply = (
  sizes: readonly [rows: number, inner: number, columns: number],
  a: Matrix,
  b: Matrix,
  target: Matrix,
  addend?: Matrix,
  accumulate?: boolean,
) => void;

function takeMultiply(context: OpContext): Multiply {
  return ([rows, inner, columns], a, b, target, addend, accumulate = false) => {
    const blocks = productBlocks(rows, inner, columns);
    const scratchBytes =
      context.sizes.linearScratchBytes(blocks.rows, inner, blocks.columns, target.dtype) >>> 0;
    context.step("linear", blocks.tasks, productTime(rows, inner, columns), [
      rows,
      inner,
      columns,
      a.dtype,
      a.address,
      a.transposed ?? false,
      b.dtype,
      b.address,
      b.transposed ?? false,
      target.dtype,
      target.address,
      accumulate,
      addend?.dtype ?? 0,
      addend?.address ?? 0,
      0,
      0,
      0,
      0,
      blocks.rows,
      blocks.columns,
      context.threadScratch(scratchBytes),
      scratchBytes,
    ]);
  };
}
