import type { Activation } from "@flash-moe/core";
import { erfc } from "./erf.js";

export interface ActivationFunction {
  value(x: number): number;
  derivative(x: number): number;
}

/** `act` of the experts and of the shared MLP, with its derivative. Finite for every finite x. */
export function activationFunction(activation: Activation): ActivationFunction {
  return activationFunctions[activation];
}

/** x sigmoid(x). */
const silu: ActivationFunction = {
  value: (x) => x * sigmoid(x),
  derivative: (x) => {
    const s = sigmoid(x);
    return s + x * s * (1 - s);
  },
};

/** x Phi(x), Phi the normal distribution function: (1 + erf(x / sqrt 2)) / 2. */
const gelu: ActivationFunction = {
  value: (x) => x * normalDistribution(x),
  derivative: (x) => normalDistribution(x) + x * Math.exp(-0.5 * x * x) * inverseSqrtTwoPi,
};

/**
 * x (1 + tanh z) / 2 with z = sqrt(2 / pi) (x + 0.044715 x^3), as PyTorch's approximate="tanh".
 * (1 + tanh z) / 2 is sigmoid(2 z), which does not cancel for negative z.
 */
const geluTanh: ActivationFunction = {
  value: (x) => x * sigmoid(2 * tanhArgument(x)),
  derivative: (x) => {
    const s = sigmoid(2 * tanhArgument(x));
    const slope = s * (1 - s);
    // Saturated: z' may have overflowed, and 0 times infinity is not 0.
    return slope === 0 ? s : s + x * slope * 2 * sqrtTwoOverPi * (1 + 3 * tanhCubic * x * x);
  },
};

/** max(x, 0); the derivative at 0 is 0, as in PyTorch. */
const relu: ActivationFunction = {
  value: (x) => Math.max(x, 0),
  derivative: (x) => (x <= 0 ? 0 : 1),
};

const activationFunctions: Record<Activation, ActivationFunction> = { silu, gelu, gelu_tanh: geluTanh, relu };

const sqrtTwoOverPi: number = Math.sqrt(2 / Math.PI);
const inverseSqrtTwoPi: number = 1 / Math.sqrt(2 * Math.PI);
const tanhCubic = 0.044715;

function tanhArgument(x: number): number {
  return sqrtTwoOverPi * (x + tanhCubic * x * x * x);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function normalDistribution(x: number): number {
  return 0.5 * erfc(-x * Math.SQRT1_2);
}
