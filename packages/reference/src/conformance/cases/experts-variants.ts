import { type Activation, activations, type FloatDType, floatDTypes } from "@flash-moe/core";
import type { ExpertsNumbers } from "../bounds/experts.js";
import { type HostFloats, hostFloats, type Inputs } from "../inputs.js";
import { outsideOf } from "../late-error.js";

/** Shapes and choices of experts that the forward and the backward cases share. */
export interface ExpertsVariant {
  readonly name: string;
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly numExperts: number;
  readonly topK: number;
  /** Default f32. */
  readonly dtype?: FloatDType;
  /** Default silu. */
  readonly activation?: Activation;
  /**
   * "distinct": as a router chooses; "drawn": duplicates occur; "twin": every id twice in its token;
   * "hot": the last expert in a slot of every token; "only": one expert in all slots; "outside": some are no
   * experts. Default distinct.
   */
  readonly ids?: "distinct" | "drawn" | "twin" | "hot" | "only" | "outside";
  /** "every-scale": of the hidden states, token by token. Default normal. */
  readonly numbers?: "normal" | "outliers" | "every-scale";
  /** The last two rows of both tables are not finite, and in no token's list. */
  readonly notFinite?: true;
}

export const expertsVariants: readonly ExpertsVariant[] = [
  { name: "f32/one-by-one", tokens: 1, hiddenSize: 1, numExperts: 1, topK: 1 },
  { name: "f32/odd-sizes", tokens: 37, hiddenSize: 129, numExperts: 63, topK: 13 },
  { name: "f32/whole-tiles", tokens: 32, hiddenSize: 64, numExperts: 64, topK: 8 },
  { name: "f32/one-token", tokens: 1, hiddenSize: 320, numExperts: 1000, topK: 37 },
  { name: "f32/one-expert-each", tokens: 130, hiddenSize: 33, numExperts: 50, topK: 1 },
  { name: "f32/all-experts", tokens: 5, hiddenSize: 19, numExperts: 35, topK: 35 },
  { name: "f32/large-k", tokens: 3, hiddenSize: 33, numExperts: 1021, topK: 512 },
  { name: "f32/wide", tokens: 3, hiddenSize: 1030, numExperts: 40, topK: 7 },
  { name: "f32/many-experts", tokens: 19, hiddenSize: 9, numExperts: 70_001, topK: 33 },
  { name: "f32/drawn", tokens: 37, hiddenSize: 17, numExperts: 20, topK: 32, ids: "drawn" },
  { name: "f32/duplicates", tokens: 9, hiddenSize: 33, numExperts: 100, topK: 16, ids: "twin" },
  { name: "f32/more-slots-than-experts", tokens: 3, hiddenSize: 7, numExperts: 3, topK: 19, ids: "drawn" },
  // Segments are cut at 256 pairs: one below, at, above, and several.
  { name: "f32/hot-255", tokens: 255, hiddenSize: 5, numExperts: 9, topK: 1, ids: "only" },
  { name: "f32/hot-256", tokens: 256, hiddenSize: 5, numExperts: 9, topK: 1, ids: "only" },
  { name: "f32/hot-257", tokens: 257, hiddenSize: 5, numExperts: 9, topK: 1, ids: "only" },
  { name: "f32/hot-expert", tokens: 700, hiddenSize: 12, numExperts: 500, topK: 3, ids: "hot" },
  { name: "f32/one-for-all", tokens: 130, hiddenSize: 17, numExperts: 3, topK: 9, ids: "only" },
  { name: "f32/ids-outside", tokens: 9, hiddenSize: 33, numExperts: 20, topK: 5, ids: "outside" },
  { name: "f32/outliers", tokens: 37, hiddenSize: 66, numExperts: 63, topK: 13, numbers: "outliers" },
  { name: "f32/not-finite-rows", tokens: 19, hiddenSize: 36, numExperts: 50, topK: 9, notFinite: true },
  ...activations.map(
    (activation): ExpertsVariant => ({
      name: `f32/${activation}`,
      tokens: 19,
      hiddenSize: 35,
      numExperts: 50,
      topK: 9,
      activation,
    }),
  ),
  // What an activation is at exactly 0, and where its exponentials and powers overflow.
  ...activations.map(
    (activation): ExpertsVariant => ({
      name: `f32/${activation}-every-scale`,
      tokens: 19,
      hiddenSize: 35,
      numExperts: 50,
      topK: 9,
      activation,
      numbers: "every-scale",
    }),
  ),
  ...floatDTypes
    .filter((dtype) => dtype !== "f32")
    .flatMap((dtype): ExpertsVariant[] => [
      { name: `${dtype}/odd-sizes`, tokens: 37, hiddenSize: 129, numExperts: 63, topK: 13, dtype },
      { name: `${dtype}/odd-row`, tokens: 5, hiddenSize: 1, numExperts: 7, topK: 3, dtype },
      {
        name: `${dtype}/duplicates`,
        tokens: 9,
        hiddenSize: 33,
        numExperts: 100,
        topK: 16,
        dtype,
        ids: "twin",
      },
      {
        name: `${dtype}/hot-expert`,
        tokens: 300,
        hiddenSize: 13,
        numExperts: 99,
        topK: 3,
        dtype,
        ids: "hot",
      },
      { name: `${dtype}/large-k`, tokens: 3, hiddenSize: 33, numExperts: 1021, topK: 512, dtype },
      { name: `${dtype}/many-experts`, tokens: 7, hiddenSize: 9, numExperts: 70_001, topK: 33, dtype },
      {
        name: `${dtype}/outliers`,
        tokens: 37,
        hiddenSize: 66,
        numExperts: 63,
        topK: 13,
        dtype,
        numbers: "outliers",
        activation: "gelu_tanh",
      },
    ]),
];

/** The tensors of a variant, on the host. */
export interface ExpertsHost {
  readonly hiddenStates: HostFloats;
  readonly down: HostFloats;
  readonly up: HostFloats;
  readonly ids: Int32Array;
  readonly weights: HostFloats;
  readonly numbers: ExpertsNumbers;
}

export function makeExperts(inputs: Inputs, variant: ExpertsVariant): ExpertsHost {
  const { tokens, hiddenSize, numExperts, topK, dtype = "f32", activation = "silu" } = variant;
  const kind = variant.numbers === "outliers" ? "outliers" : "normal";
  const hiddenStates =
    variant.numbers === "every-scale"
      ? inputs.everyScale(tokens * hiddenSize, dtype, hiddenSize)
      : inputs[kind](tokens * hiddenSize, dtype);
  // So that x . down is of order one, where activations bend.
  const table = (rows: HostFloats) => (variant.notFinite ? spoilLastRows(rows, hiddenSize) : rows);
  const down = table(inputs.normal(numExperts * hiddenSize, dtype, 1 / Math.sqrt(hiddenSize)));
  const up = table(inputs[kind](numExperts * hiddenSize, dtype));
  const ids = makeIds(inputs, variant.notFinite ? { ...variant, numExperts: numExperts - 2 } : variant);
  // Of both signs: from outside, weights need not come from a softmax.
  const weights = inputs.normal(tokens * topK, "f32", 0.5, 0.25);
  const numbers: ExpertsNumbers = {
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates: hiddenStates.values,
    down: down.values,
    up: up.values,
    ids,
    weights: weights.values,
  };
  return { hiddenStates, down, up, ids, weights, numbers };
}

/** The last row NaN, the one before it infinite. */
function spoilLastRows({ dtype, values }: HostFloats, hiddenSize: number): HostFloats {
  const spoiled = values.slice();
  spoiled.fill(Number.POSITIVE_INFINITY, -2 * hiddenSize).fill(Number.NaN, -hiddenSize);
  return hostFloats(spoiled, dtype);
}

function makeIds(inputs: Inputs, variant: ExpertsVariant): Int32Array {
  const { tokens, numExperts, topK, ids = "distinct" } = variant;
  const last = numExperts - 1;
  if (ids === "drawn") return inputs.ids(tokens * topK, numExperts);
  if (ids === "hot") return inputs.hotIds(tokens, topK, numExperts, last);
  if (ids === "only") return new Int32Array(tokens * topK).fill(last);
  const distinct = inputs.distinctIds(tokens, topK, numExperts);
  if (ids === "outside") {
    outsideOf(numExperts).forEach((id, n) => {
      distinct[(2 * n + 1) * topK + n] = id;
    });
  }
  return ids === "twin" ? distinct.map((_, pair) => distinct[pair - (pair % 2)]) : distinct;
}
