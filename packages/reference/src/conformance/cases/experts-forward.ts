import { type FloatDType, floatDTypes } from "@flash-moe/core";
import { expertsForward, rowsOf } from "../../oracle/experts.js";
import { expertsForwardErrors } from "../bounds/experts.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkLateError } from "../late-error.js";
import { type ExpertsVariant, expertsVariants, makeExperts } from "./experts-variants.js";

interface ForwardVariant extends ExpertsVariant {
  /** Dtype of the addend; none by default. */
  readonly addend?: FloatDType;
  /** Dtype of the output; the storage dtype by default. */
  readonly output?: FloatDType;
}

const shape = { tokens: 19, hiddenSize: 35, numExperts: 50, topK: 9 };

const variants: readonly ForwardVariant[] = [
  ...expertsVariants,
  { name: "f32/no-tokens", ...shape, tokens: 0 },
  { name: "f32/addend", ...shape, addend: "f32" },
  // Enough experts of each token, and tokens, for a device that multiplies all of them by all and masks.
  ...floatDTypes.flatMap((dtype): ForwardVariant[] => {
    const most = { tokens: 300, hiddenSize: 384, numExperts: 202, topK: 200, dtype };
    return [
      { name: `${dtype}/most-of-few`, ...most, output: "f32" },
      { name: `${dtype}/not-finite-rows-of-few`, ...most, notFinite: true },
    ];
  }),
  ...(["f16", "bf16"] as const).flatMap((dtype): ForwardVariant[] => [
    { name: `${dtype}/addend-f32`, ...shape, dtype, addend: "f32" },
    { name: `${dtype}/addend-storage`, ...shape, dtype, addend: dtype },
    { name: `${dtype}/output-f32`, ...shape, dtype, output: "f32" },
    { name: `${dtype}/addend-f32-output-f32`, ...shape, dtype, addend: "f32", output: "f32" },
    { name: `${dtype}/addend-storage-output-f32`, ...shape, dtype, addend: dtype, output: "f32" },
  ]),
];

/** `expertsForward` against the oracle. */
export const expertsForwardCases: readonly ConformanceCase[] = variants.map((variant) => ({
  id: `experts-forward/${variant.name}`,
  needs: needs({ ops: ["expertsForward"], dtypes: [variant.dtype ?? "f32"] }),
  run: (context) => runForward(context, variant),
}));

async function runForward(context: CaseContext, variant: ForwardVariant): Promise<void> {
  const { tokens, hiddenSize, numExperts, topK, dtype = "f32", activation = "silu" } = variant;
  const host = makeExperts(context.inputs, variant);
  const addend =
    variant.addend === undefined ? undefined : context.inputs.normal(tokens * hiddenSize, variant.addend, 3);
  const outputDType = variant.output ?? dtype;
  const output = context.output(outputDType, tokens * hiddenSize, "output");
  context.backend.ops.expertsForward({
    tokens,
    hiddenSize,
    numExperts,
    topK,
    activation,
    hiddenStates: context.floats(host.hiddenStates, "hiddenStates"),
    down: context.floats(host.down, "down"),
    up: context.floats(host.up, "up"),
    ids: context.integers(host.ids, "ids"),
    weights: context.floats(host.weights, "weights"),
    output,
    ...(addend && { addend: context.floats(addend, "addend") }),
  });
  if (variant.ids === "outside") await checkLateError(context.backend, "expertsForward");
  const { numbers } = host;
  const expected = expertsForward({
    ...numbers,
    down: rowsOf(numbers.down, hiddenSize),
    up: rowsOf(numbers.up, hiddenSize),
  });
  if (addend !== undefined) for (let n = 0; n < expected.length; n++) expected[n] += addend.values[n];
  const errors = expertsForwardErrors(numbers, addend?.values);
  context.compare("output", await context.values(output), expected, errors, outputDType);
}
