/** silu: x * sigmoid(x); gelu: with erf; gelu_tanh: its tanh approximation; relu: max(x, 0). */
export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu";

/** All activations. */
export const activations: readonly Activation[] = ["silu", "gelu", "gelu_tanh", "relu"];
