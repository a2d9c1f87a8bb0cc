import { bf16ToFloat32, float32ToBf16 } from "@flash-moe/core";

/** How a device computes: every operation is rounded. */
export interface Precision {
  /** What an operand of a product is rounded to when it is loaded. */
  readonly load: (x: number) => number;
  /** What the sums of products are rounded to, after each term. */
  readonly sum: (x: number) => number;
  /** The next term to add, given how many there are: the order of summation. */
  readonly term: (step: number, length: number) => number;
  /** Relative error of exp, of either sign. */
  readonly expError: (x: number) => number;
  /** What the MLP keeps tensors of [T, I] in. */
  readonly intermediate: (x: number) => number;
}

const exactly = (x: number): number => x;
export const roundToBf16 = (x: number): number => bf16ToFloat32(float32ToBf16(x));

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** 10 bits after the leading one, as tensor cores take f32 operands. */
function roundToTf32(x: number): number {
  f32[0] = x;
  u32[0] = (u32[0] + 0xfff + ((u32[0] >>> 13) & 1)) & ~0x1fff;
  return f32[0];
}

/** The nearest number of bf16 towards zero. */
export function cutToBf16(x: number): number {
  f32[0] = x;
  u32[0] &= 0xffff0000;
  return f32[0];
}

/** A CPU: one term after the other. */
export const forwards: Precision = {
  load: exactly,
  sum: Math.fround,
  term: (step) => step,
  expError: () => 0,
  intermediate: exactly,
};

/** Another order, and the functions of a GPU at their worst: 3 + 2 |x| units in the last place for exp. */
export const backwardsOnGpu: Precision = {
  ...forwards,
  term: (step, length) => length - 1 - step,
  expError: (x) =>
    Number.isFinite(x) ? (Math.round(x * 1024) % 2 === 0 ? 1 : -1) * (3 + 2 * Math.abs(x)) * 2 ** -23 : 0,
};

/** Tensor cores, which multiply numbers of the storage dtype. */
export const bf16Intermediate: Precision = { ...forwards, intermediate: roundToBf16 };

/** Half precision where single was promised. */
export const bf16Sums: Precision = { ...forwards, sum: roundToBf16 };
export const tf32Operands: Precision = { ...forwards, load: roundToTf32 };
export const bf16Operands: Precision = { ...forwards, load: roundToBf16 };

/** A loop that ends one too early. */
export const lastTermDropped: Precision = {
  ...forwards,
  term: (step, length) => (step === length - 1 && length > 1 ? -1 : step),
};
