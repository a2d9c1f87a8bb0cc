import {
  type Activation,
  activations,
  type DeviceBuffer,
  type FloatDType,
  type MlpBackwardCall,
} from "@flash-moe/core";
import { mlpBackward, mlpForward } from "../../oracle/mlp.js";
import { addToStart } from "../bounds/approximate.js";
import { type MlpNumbers, mlpBackwardApproximate, mlpForwardApproximate } from "../bounds/mlp.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import type { HostFloats } from "../inputs.js";

interface MlpVariant {
  readonly name: string;
  readonly tokens: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  /** Default f32. */
  readonly dtype?: FloatDType;
  /** Default silu. */
  readonly activation?: Activation;
  /** Of the hidden states; "every-scale": token by token. Default normal. */
  readonly numbers?: "normal" | "outliers" | "every-scale";
}

interface ForwardVariant extends MlpVariant {
  /** Dtype of the addend; none by default. */
  readonly addend?: FloatDType;
  /** Dtype of the output; the storage dtype by default. */
  readonly output?: FloatDType;
}

type Output = "gradHiddenStates" | "gradGate" | "gradUp" | "gradDown";

interface BackwardVariant extends MlpVariant {
  /** Deviation of the incoming gradient. Default 1. */
  readonly gradScale?: number;
  /** Which outputs are asked for; all by default. */
  readonly outputs?: readonly Output[];
  readonly accumulate?: NonNullable<MlpBackwardCall["accumulate"]>;
}

const allOutputs: readonly Output[] = ["gradHiddenStates", "gradGate", "gradUp", "gradDown"];
const shape = { tokens: 19, hiddenSize: 35, intermediateSize: 41 };

const variants: readonly MlpVariant[] = [
  { name: "f32/one-by-one", tokens: 1, hiddenSize: 1, intermediateSize: 1 },
  { name: "f32/odd-sizes", tokens: 37, hiddenSize: 65, intermediateSize: 129 },
  { name: "f32/whole-tiles", tokens: 32, hiddenSize: 64, intermediateSize: 64 },
  { name: "f32/one-token", tokens: 1, hiddenSize: 129, intermediateSize: 65 },
  { name: "f32/many-tokens", tokens: 517, hiddenSize: 9, intermediateSize: 7 },
  { name: "f32/outliers", tokens: 37, hiddenSize: 33, intermediateSize: 66, numbers: "outliers" },
  ...activations.map((activation): MlpVariant => ({ name: `f32/${activation}`, ...shape, activation })),
  // What an activation is at exactly 0, and where its exponentials and powers overflow.
  ...activations.map(
    (activation): MlpVariant => ({
      name: `f32/${activation}-every-scale`,
      ...shape,
      activation,
      numbers: "every-scale",
    }),
  ),
  ...(["f16", "bf16"] as const).flatMap((dtype): MlpVariant[] => [
    { name: `${dtype}/odd-sizes`, tokens: 37, hiddenSize: 65, intermediateSize: 129, dtype },
    { name: `${dtype}/odd-row`, tokens: 5, hiddenSize: 1, intermediateSize: 3, dtype },
    { name: `${dtype}/gelu`, ...shape, dtype, activation: "gelu" },
    { name: `${dtype}/several-tiles`, tokens: 136, hiddenSize: 328, intermediateSize: 264, dtype },
  ]),
];

const forward: readonly ForwardVariant[] = [
  ...variants,
  { name: "f32/no-tokens", ...shape, tokens: 0 },
  { name: "f32/addend", ...shape, addend: "f32" },
  ...(["f16", "bf16"] as const).flatMap((dtype): ForwardVariant[] => [
    { name: `${dtype}/output-f32`, ...shape, dtype, output: "f32" },
    { name: `${dtype}/addend-storage`, ...shape, dtype, addend: dtype },
    { name: `${dtype}/addend-f32-output-f32`, ...shape, dtype, addend: "f32", output: "f32" },
  ]),
];

const backward: readonly BackwardVariant[] = [
  ...variants,
  ...allOutputs.flatMap((output): BackwardVariant[] => [
    { name: `f32/only-${output}`, ...shape, outputs: [output] },
    { name: `f32/accumulate-${output}`, ...shape, accumulate: [output] },
  ]),
  { name: "bf16/accumulate-all", ...shape, dtype: "bf16", accumulate: [...allOutputs] },
  // The gradient of the intermediate is below what f16 has all of its digits for.
  { name: "f16/small-gradient", ...shape, dtype: "f16", gradScale: 2 ** -18 },
];

/** `mlpForward` and `mlpBackward` against the oracle. */
export const mlpCases: readonly ConformanceCase[] = [
  ...forward.map(
    (variant): ConformanceCase => ({
      id: `mlp-forward/${variant.name}`,
      needs: needs({ ops: ["mlpForward"], dtypes: [variant.dtype ?? "f32"] }),
      run: (context) => runForward(context, variant),
    }),
  ),
  ...backward.map(
    (variant): ConformanceCase => ({
      id: `mlp-backward/${variant.name}`,
      needs: needs({ ops: ["mlpBackward"], dtypes: [variant.dtype ?? "f32"] }),
      run: (context) => runBackward(context, variant),
    }),
  ),
];

interface MlpHost {
  readonly hiddenStates: HostFloats;
  readonly gate: HostFloats;
  readonly up: HostFloats;
  readonly down: HostFloats;
  readonly numbers: MlpNumbers;
}

function makeMlp(context: CaseContext, variant: MlpVariant): MlpHost {
  const { inputs } = context;
  const { tokens, hiddenSize, intermediateSize, dtype = "f32", activation = "silu" } = variant;
  const weights = intermediateSize * hiddenSize;
  const hiddenStates =
    variant.numbers === "every-scale"
      ? inputs.everyScale(tokens * hiddenSize, dtype, hiddenSize)
      : inputs[variant.numbers ?? "normal"](tokens * hiddenSize, dtype);
  const gate = inputs.normal(weights, dtype, 1 / Math.sqrt(hiddenSize));
  const up = inputs.normal(weights, dtype, 1 / Math.sqrt(hiddenSize));
  const down = inputs.normal(weights, dtype, 1 / Math.sqrt(intermediateSize));
  const numbers: MlpNumbers = {
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    hiddenStates: hiddenStates.values,
    gate: gate.values,
    up: up.values,
    down: down.values,
    intermediate: context.backend.capabilities.mlpIntermediate === "storage" ? dtype : "f32",
  };
  return { hiddenStates, gate, up, down, numbers };
}

function upload(
  context: CaseContext,
  host: MlpHost,
): Record<"hiddenStates" | "gate" | "up" | "down", DeviceBuffer> {
  return {
    hiddenStates: context.floats(host.hiddenStates, "hiddenStates"),
    gate: context.floats(host.gate, "gate"),
    up: context.floats(host.up, "up"),
    down: context.floats(host.down, "down"),
  };
}

async function runForward(context: CaseContext, variant: ForwardVariant): Promise<void> {
  const { tokens, hiddenSize, intermediateSize, dtype = "f32", activation = "silu" } = variant;
  const host = makeMlp(context, variant);
  const addend =
    variant.addend === undefined ? undefined : context.inputs.normal(tokens * hiddenSize, variant.addend, 3);
  const outputDType = variant.output ?? dtype;
  const output = context.output(outputDType, tokens * hiddenSize, "output");
  context.backend.ops.mlpForward({
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    ...upload(context, host),
    output,
    ...(addend && { addend: context.floats(addend, "addend") }),
  });
  const expected = mlpForward(host.numbers);
  if (addend !== undefined) for (let n = 0; n < expected.length; n++) expected[n] += addend.values[n];
  const { errors } = mlpForwardApproximate(host.numbers, addend?.values);
  context.compare("output", await context.values(output), expected, errors, outputDType);
}

async function runBackward(context: CaseContext, variant: BackwardVariant): Promise<void> {
  const { inputs } = context;
  const { tokens, hiddenSize, intermediateSize, dtype = "f32", activation = "silu" } = variant;
  const wanted = variant.outputs ?? allOutputs;
  const host = makeMlp(context, variant);
  const gradOutput = inputs.normal(tokens * hiddenSize, dtype, variant.gradScale);
  const starts: Partial<Record<Output, Float64Array>> = {};
  const buffers: Partial<Record<Output, DeviceBuffer>> = {};
  for (const name of wanted) {
    const length = (name === "gradHiddenStates" ? tokens : intermediateSize) * hiddenSize;
    if (variant.accumulate?.includes(name)) {
      const start = inputs.normal(length);
      starts[name] = start.values;
      buffers[name] = context.floats(start, name);
    } else {
      buffers[name] = context.output("f32", length, name);
    }
  }
  context.backend.ops.mlpBackward({
    tokens,
    hiddenSize,
    intermediateSize,
    activation,
    ...upload(context, host),
    gradOutput: context.floats(gradOutput, "gradOutput"),
    ...buffers,
    ...(variant.accumulate && { accumulate: variant.accumulate }),
  });
  const expected = mlpBackward({ ...host.numbers, gradOutput: gradOutput.values });
  const approximate = mlpBackwardApproximate(host.numbers, gradOutput.values);
  for (const name of wanted) {
    const terms = name === "gradHiddenStates" ? 2 * intermediateSize : tokens;
    const gradient = { values: expected[name], errors: approximate[name].errors };
    const start = starts[name];
    const { values, errors } = start === undefined ? gradient : addToStart(start, gradient, terms);
    context.compare(name, await context.values(buffers[name]!), values, errors);
  }
}
