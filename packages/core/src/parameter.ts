import type { FloatDType } from "./dtype.js";
import type { Tensor } from "./tensor.js";

/** A weight that is learnt, under upstream's name ("down_embed.weight"). */
export interface Parameter {
  readonly name: string;
  readonly tensor: Tensor<FloatDType>;
}
