import type { Activation } from "@flash-moe/core";

const codes: Readonly<Record<Activation, number>> = { silu: 0, gelu: 1, gelu_tanh: 2, relu: 3 };

/** The parameter that chooses an activation in a kernel. */
export function activationCode(activation: Activation): number {
  return codes[activation];
}
