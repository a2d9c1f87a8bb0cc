import type { MlpBackwardCall, MlpForwardCall } from "@flash-moe/core";
import type { OpContext } from "../op-context.js";
import { activationTime, productBlocks, productTime, productWay } from "../partition.js";
import { activationNumber, dtypeNumber, type WasmBuffer } from "../wasm-buffer.js";
import { type Matrix, matrixOf, packRows, product, scratchMatrix } from "./product.js";

/** Tokens whose intermediates [tokens, I] exist at a time. */
const blockTokens = 512;

export function mlpForward(call: MlpForwardCall<WasmBuffer>, context: OpContext): void {
  const { tokens, hiddenSize, intermediateSize, hiddenStates, addend, output } = call;
  if (tokens === 0) return;
  const block = Math.min(tokens, blockTokens);
  const hidden = context.scratch(block * intermediateSize * 4);
  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    hiddenStep(call, count, matrixOf(hiddenStates, false, start), { hidden }, context);
    product(
      [count, intermediateSize, hiddenSize],
      scratchMatrix(hidden),
      matrixOf(call.down, true),
      matrixOf(output, false, start),
      context,
      { addend: addend && matrixOf(addend, false, start) },
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

  for (let token = 0; token < tokens; token += block) {
    const count = Math.min(block, tokens - token);
    const start = token * hiddenSize;
    const x = matrixOf(hiddenStates, false, start);
    const d = matrixOf(gradOutput, false, start);
    hiddenStep(call, count, x, { hidden, gradOutput: d, dGate, dUp }, context);
    const [h, da, db] = [hidden, dGate, dUp].map(scratchMatrix);
    if (gradHiddenStates !== undefined) {
      const sizes = [count, intermediateSize, hiddenSize] as const;
      const target = matrixOf(gradHiddenStates, false, start);
      const accumulate = accumulates("gradHiddenStates");
      product(sizes, da, matrixOf(call.gate), target, context, { accumulate });
      product(sizes, db, matrixOf(call.up), target, context, { accumulate: true });
    }
    const sumTokens = (name: "gradGate" | "gradUp" | "gradDown", left: Matrix, right: Matrix): void => {
      const gradient = call[name];
      if (gradient === undefined) return;
      const [rows, columns] =
        name === "gradDown" ? [hiddenSize, intermediateSize] : [intermediateSize, hiddenSize];
      const accumulate = accumulates(name) || token > 0;
      const transposed = { ...left, transposed: true };
      product([rows, count, columns], transposed, right, matrixOf(gradient), context, { accumulate });
    };
    sumTokens("gradDown", d, h);
    sumTokens("gradGate", da, x);
    sumTokens("gradUp", db, x);
  }
}

/** Where `mlpHidden` puts what it makes, and what it takes for the backward. */
interface HiddenStep {
  readonly hidden: number;
  readonly gradOutput?: Matrix;
  readonly dGate?: number;
  readonly dUp?: number;
}

function hiddenStep(
  call: MlpForwardCall<WasmBuffer> | MlpBackwardCall<WasmBuffer>,
  tokens: number,
  x: Matrix,
  { hidden, gradOutput, dGate = 0, dUp = 0 }: HiddenStep,
  context: OpContext,
): void {
  const { hiddenSize, intermediateSize } = call;
  const products = gradOutput === undefined ? 2 : 3;
  const way = productWay(tokens, hiddenSize, true);
  const pack = (states: Matrix | undefined): number =>
    states !== undefined && way === "blocks" ? packRows(tokens, hiddenSize, states, hiddenSize, context) : 0;
  const [packed, packedGradOutput] = [pack(x), pack(gradOutput)];
  const blocks = productBlocks(way, tokens, hiddenSize, intermediateSize, products);
  const scratchBytes = context.sizes.mlpScratchBytes(blocks.rows, hiddenSize, blocks.columns, products) >>> 0;
  const time =
    products * productTime(way, tokens, hiddenSize, intermediateSize) +
    (products - 1) * activationTime * tokens * intermediateSize;
  context.step("mlpHidden", blocks.tasks, time, [
    tokens,
    hiddenSize,
    intermediateSize,
    activationNumber(call.activation),
    dtypeNumber(call.gate),
    x.address,
    packed,
    call.gate.address,
    call.up.address,
    hidden,
    gradOutput?.address ?? 0,
    packedGradOutput,
    call.down.address,
    dGate,
    dUp,
    blocks.rows,
    blocks.columns,
    context.threadScratch(scratchBytes),
    scratchBytes,
  ]);
}
