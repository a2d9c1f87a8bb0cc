import { type Activation, activations, FlashMoeError } from "@flash-moe/core";

export function expectSize(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1 || value >= 2 ** 31) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `${name} is ${String(value)}; takes an integer from 1 to ${2 ** 31 - 1}`,
    );
  }
}

export function expectActivation(activation: Activation): void {
  if (!activations.includes(activation)) {
    throw new FlashMoeError(
      "INVALID_ARGUMENT",
      `activation is ${String(activation)}; takes one of ${activations.join(", ")}`,
    );
  }
}
