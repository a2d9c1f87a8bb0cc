import type { Tensor } from "./tensor.js";

/** A weight that is learnt, under upstream's name ("down_embed.weight"). */
export interface Parameter {
  readonly name: string;
  readonly tensor: Tensor;
}

/** The gradient of one parameter, f32: for every row, or for the rows that were used (see `TableGradients`). */
export type ParameterGradient =
  | { readonly layout: "dense"; readonly values: Tensor }
  | { readonly layout: "compact"; readonly values: Tensor; readonly ids: Tensor; readonly count: Tensor };

/** What a module's backward gives. Owns its tensors. */
export class Gradients implements Disposable {
  /** With respect to the module's input, f32, in its shape. */
  readonly hiddenStates: Tensor;
  /** By parameter name. */
  readonly parameters: ReadonlyMap<string, ParameterGradient>;

  constructor(hiddenStates: Tensor, parameters: ReadonlyMap<string, ParameterGradient>) {
    this.hiddenStates = hiddenStates;
    this.parameters = parameters;
  }

  /** Idempotent. */
  dispose(): void {
    this.hiddenStates.dispose();
    for (const gradient of this.parameters.values()) {
      gradient.values.dispose();
      if (gradient.layout === "compact") {
        gradient.ids.dispose();
        gradient.count.dispose();
      }
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Where a backward adds its results instead of making new tensors: an f32 tensor in the shape of the
 * hidden states, and dense gradients by parameter name. They stay the caller's.
 */
export interface AddTo {
  readonly hiddenStates?: Tensor;
  readonly parameters?: ReadonlyMap<string, ParameterGradient>;
}
