/**
 * Calls of ops on their way to the addon: their fields as numbers, one after the other, in the order of
 * native/addon/decode_calls.h, which reads them back. Change both together; test/call-block.test.ts compares them
 * field by field.
 */
import type { Activation, DType, OpCalls, OpName } from "@flash-moe/core";
import type { CudaBuffer } from "./cuda-buffer.js";

/** Numbers that any call fits in. */
export const callBlockLength = 64;

/** Writes `call` into `block`. What is absent is written as 0. */
export type EncodeCall<Name extends OpName> = (block: Float64Array, call: OpCalls<CudaBuffer>[Name]) => void;

// 0 is an absent buffer.
const dtypeCodes: Readonly<Record<DType, number>> = { f32: 1, f16: 2, bf16: 3, i32: 4 };
const activationCodes: Readonly<Record<Activation, number>> = { silu: 0, gelu: 1, gelu_tanh: 2, relu: 3 };
const absentLayout = 0;
const layoutCodes = { dense: 1, compact: 2 } as const;

/** Writes one call, field after field. One for each thread of JavaScript is enough: calls are written one by one. */
class Writer {
  #block: Float64Array = new Float64Array(0);
  #at = 0;

  start(block: Float64Array): this {
    this.#block = block;
    this.#at = 0;
    return this;
  }

  number(value: number): this {
    this.#block[this.#at++] = value;
    return this;
  }

  flag(value: boolean | undefined): this {
    return this.number(value ? 1 : 0);
  }

  buffer(value: CudaBuffer | undefined): this {
    if (value === undefined) return this.number(0).number(0);
    return this.number(dtypeCodes[value.dtype]).number(value.address);
  }

  norm(value: { mean: CudaBuffer; variance: CudaBuffer; epsilon: number } | undefined): this {
    return this.buffer(value?.mean)
      .buffer(value?.variance)
      .number(value?.epsilon ?? 0);
  }
}

const writer = new Writer();

function includes(accumulate: readonly string[] | undefined, name: string): boolean {
  return accumulate?.includes(name) ?? false;
}

interface RouterShape {
  tokens: number;
  keysX: number;
  keysY: number;
  topK: number;
  normalizeWeights: boolean;
}

function routerShape(block: Float64Array, call: RouterShape): Writer {
  return writer
    .start(block)
    .number(call.tokens)
    .number(call.keysX)
    .number(call.keysY)
    .number(call.topK)
    .flag(call.normalizeWeights);
}

function expertsShape(
  block: Float64Array,
  call: Omit<OpCalls<CudaBuffer>["expertsForward"], "output">,
): Writer {
  return writer
    .start(block)
    .number(call.tokens)
    .number(call.hiddenSize)
    .number(call.numExperts)
    .number(call.topK)
    .number(activationCodes[call.activation])
    .buffer(call.hiddenStates)
    .buffer(call.down)
    .buffer(call.up)
    .buffer(call.ids)
    .buffer(call.weights);
}

function mlpShape(block: Float64Array, call: Omit<OpCalls<CudaBuffer>["mlpForward"], "output">): Writer {
  return writer
    .start(block)
    .number(call.tokens)
    .number(call.hiddenSize)
    .number(call.intermediateSize)
    .number(activationCodes[call.activation])
    .buffer(call.hiddenStates)
    .buffer(call.gate)
    .buffer(call.up)
    .buffer(call.down);
}

/** How each call is written. */
export const encodeCalls: { readonly [Name in OpName]: EncodeCall<Name> } = {
  linear(block, call) {
    writer
      .start(block)
      .number(call.rows)
      .number(call.inner)
      .number(call.columns)
      .buffer(call.a)
      .buffer(call.b)
      .buffer(call.output)
      .flag(call.transposeA)
      .flag(call.transposeB)
      .flag(includes(call.accumulate, "output"))
      .norm(call.inputNorm)
      .norm(call.outputNorm);
  },

  batchNormForward(block, call) {
    const training = call.training ? call : undefined;
    writer
      .start(block)
      .number(call.tokens)
      .number(call.features)
      .buffer(call.input)
      .buffer(call.output)
      .number(call.epsilon)
      .flag(call.training)
      .buffer(call.mean)
      .buffer(call.variance)
      .number(training?.momentum ?? 0)
      .buffer(training?.runningMean)
      .buffer(training?.runningVariance);
  },

  batchNormBackward(block, call) {
    writer
      .start(block)
      .number(call.tokens)
      .number(call.features)
      .flag(call.training)
      .number(call.epsilon)
      .buffer(call.input)
      .buffer(call.mean)
      .buffer(call.variance)
      .buffer(call.gradOutput)
      .buffer(call.gradInput)
      .flag(includes(call.accumulate, "gradInput"));
  },

  routerSelectForward(block, call) {
    routerShape(block, call).buffer(call.logits).buffer(call.ids).buffer(call.weights);
  },

  routerSelectBackward(block, call) {
    routerShape(block, call)
      .buffer(call.logits)
      .buffer(call.ids)
      .buffer(call.gradWeights)
      .buffer(call.gradLogits)
      .flag(includes(call.accumulate, "gradLogits"));
  },

  expertsForward(block, call) {
    expertsShape(block, call).buffer(call.addend).buffer(call.output);
  },

  expertsBackward(block, call) {
    const tables = call.gradTables;
    const compact = tables?.layout === "compact" ? tables : undefined;
    expertsShape(block, call)
      .buffer(call.gradOutput)
      .buffer(call.gradHiddenStates)
      .buffer(call.gradWeights)
      .number(tables === undefined ? absentLayout : layoutCodes[tables.layout])
      .buffer(tables?.down)
      .buffer(tables?.up)
      .buffer(compact?.ids)
      .buffer(compact?.count)
      .flag(includes(call.accumulate, "gradHiddenStates"))
      .flag(includes(call.accumulate, "gradWeights"))
      .flag(includes(call.accumulate, "gradTables"));
  },

  mlpForward(block, call) {
    mlpShape(block, call).buffer(call.addend).buffer(call.output);
  },

  mlpBackward(block, call) {
    mlpShape(block, call)
      .buffer(call.gradOutput)
      .buffer(call.gradHiddenStates)
      .buffer(call.gradGate)
      .buffer(call.gradUp)
      .buffer(call.gradDown)
      .flag(includes(call.accumulate, "gradHiddenStates"))
      .flag(includes(call.accumulate, "gradGate"))
      .flag(includes(call.accumulate, "gradUp"))
      .flag(includes(call.accumulate, "gradDown"));
  },

  adamw(block, call) {
    writer
      .start(block)
      .number(call.rows)
      .number(call.columns)
      .buffer(call.parameter)
      .buffer(call.master)
      .buffer(call.firstMoment)
      .buffer(call.secondMoment)
      .buffer(call.gradient)
      .flag(call.compact !== undefined)
      .number(call.compact?.capacity ?? 0)
      .buffer(call.compact?.ids)
      .buffer(call.compact?.count)
      .number(call.step)
      .number(call.learningRate)
      .number(call.beta1)
      .number(call.beta2)
      .number(call.epsilon)
      .number(call.weightDecay)
      .number(call.gradientScale);
  },
};
