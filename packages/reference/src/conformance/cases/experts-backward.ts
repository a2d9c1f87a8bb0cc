import type { DeviceBuffer, ExpertsBackwardCall, TableGradients } from "@flash-moe/core";
import {
  type CompactTableGradients,
  expertsBackward,
  expertsTableGradients,
  rowsOf,
} from "../../oracle/experts.js";
import { type Approximate, addToStart } from "../bounds/approximate.js";
import { type ExpertsBackwardErrors, expertsBackwardErrors } from "../bounds/experts.js";
import { type ConformanceCase, needs } from "../case.js";
import type { CaseContext } from "../context.js";
import { checkEqual } from "../failure.js";
import { checkLateError } from "../late-error.js";
import { type ExpertsVariant, expertsVariants, makeExperts } from "./experts-variants.js";

type Output = "gradHiddenStates" | "gradWeights" | "down" | "up";

interface BackwardVariant extends ExpertsVariant {
  readonly layout: "dense" | "compact";
  /** Which outputs are asked for; all by default. */
  readonly outputs?: readonly Output[];
  readonly accumulate?: NonNullable<ExpertsBackwardCall["accumulate"]>;
}

const allOutputs: readonly Output[] = ["gradHiddenStates", "gradWeights", "down", "up"];
const shape = { tokens: 19, hiddenSize: 35, numExperts: 50, topK: 9 };
const hot = { tokens: 300, hiddenSize: 9, numExperts: 40, topK: 2, ids: "hot" } as const;

const variants: readonly BackwardVariant[] = [
  ...expertsVariants.map(
    (variant): BackwardVariant => ({
      ...variant,
      name: `${variant.name}/dense`,
      layout: "dense",
    }),
  ),
  ...expertsVariants.map(
    (variant): BackwardVariant => ({
      ...variant,
      name: `${variant.name}/compact`,
      layout: "compact",
    }),
  ),
  ...allOutputs.flatMap((output): BackwardVariant[] => [
    { name: `f32/only-${output}/dense`, ...shape, layout: "dense", outputs: [output] },
    { name: `f32/only-${output}/compact`, ...shape, layout: "compact", outputs: [output] },
  ]),
  { name: "f32/no-outputs/dense", ...shape, layout: "dense", outputs: [] },
  { name: "f32/ids-alone/compact", ...shape, layout: "compact", outputs: [] },
  {
    name: "f32/accumulate-states",
    ...shape,
    layout: "compact",
    accumulate: ["gradHiddenStates", "gradWeights"],
  },
  { name: "f32/accumulate-tables", ...shape, layout: "dense", accumulate: ["gradTables"] },
  { name: "f32/accumulate-hot", ...hot, layout: "dense", accumulate: ["gradTables"] },
  // Enough experts of each token, and tokens, for a device that multiplies all of them by all and masks.
  ...(["dense", "compact"] as const).map(
    (layout): BackwardVariant => ({
      name: `bf16/not-finite-rows-of-few/${layout}`,
      tokens: 300,
      hiddenSize: 128,
      numExperts: 202,
      topK: 100,
      dtype: "bf16",
      notFinite: true,
      layout,
    }),
  ),
  {
    name: "bf16/accumulate-drawn-of-few",
    tokens: 200,
    hiddenSize: 72,
    numExperts: 150,
    topK: 70,
    dtype: "bf16",
    ids: "drawn",
    activation: "gelu",
    layout: "dense",
    accumulate: ["gradHiddenStates", "gradWeights", "gradTables"],
  },
  {
    name: "bf16/accumulate-all",
    ...shape,
    dtype: "bf16",
    layout: "dense",
    accumulate: ["gradHiddenStates", "gradWeights", "gradTables"],
  },
];

/** `expertsBackward` against the oracle. */
export const expertsBackwardCases: readonly ConformanceCase[] = variants.map((variant) => ({
  id: `experts-backward/${variant.name}`,
  needs: needs({ ops: ["expertsBackward"], dtypes: [variant.dtype ?? "f32"] }),
  run: (context) => runBackward(context, variant),
}));

async function runBackward(context: CaseContext, variant: BackwardVariant): Promise<void> {
  const { inputs } = context;
  const { tokens, hiddenSize, numExperts, topK, dtype = "f32", activation = "silu", layout } = variant;
  const wanted = new Set<Output>(variant.outputs ?? allOutputs);
  const accumulated = new Set<string>(variant.accumulate);
  const host = makeExperts(inputs, variant);
  const gradOutput = inputs.normal(tokens * hiddenSize, dtype);
  const rows = layout === "dense" ? numExperts : Math.min(tokens * topK, numExperts);
  const lengths: Record<Output, number> = {
    gradHiddenStates: tokens * hiddenSize,
    gradWeights: tokens * topK,
    down: rows * hiddenSize,
    up: rows * hiddenSize,
  };
  const starts = new Map<Output, Float64Array>();
  const buffers = new Map<Output, DeviceBuffer>();
  for (const name of allOutputs.filter((output) => wanted.has(output))) {
    if (accumulated.has(name === "down" || name === "up" ? "gradTables" : name)) {
      const start = inputs.normal(lengths[name]);
      starts.set(name, start.values);
      buffers.set(name, context.floats(start, name));
    } else {
      buffers.set(name, context.output("f32", lengths[name], name));
    }
  }
  const tables = { down: buffers.get("down"), up: buffers.get("up") };
  const compact = {
    ids: context.output("i32", rows, "gradTables.ids"),
    count: context.output("i32", 1, "gradTables.count"),
  };
  const gradTables: TableGradients =
    layout === "dense" ? { layout, ...tables } : { layout, ...compact, ...tables };
  context.backend.ops.expertsBackward({
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
    gradOutput: context.floats(gradOutput, "gradOutput"),
    gradHiddenStates: buffers.get("gradHiddenStates"),
    gradWeights: buffers.get("gradWeights"),
    gradTables,
    accumulate: variant.accumulate,
  });
  if (variant.ids === "outside") await checkLateError(context.backend, "expertsBackward");

  const { numbers } = host;
  const params = {
    ...numbers,
    down: rowsOf(numbers.down, hiddenSize),
    up: rowsOf(numbers.up, hiddenSize),
    gradOutput: gradOutput.values,
  };
  const perToken = expertsBackward(params);
  const perExpert = expertsTableGradients(params, perToken);
  const errors = expertsBackwardErrors(numbers, gradOutput.values);
  // How many terms an accumulated output may be added to one by one.
  const longest = tokens * topK;
  const judge = async (name: Output, gradient: Approximate): Promise<void> => {
    const buffer = buffers.get(name);
    if (buffer === undefined) return;
    const start = starts.get(name);
    const judged = start === undefined ? gradient : addToStart(start, gradient, longest);
    // Of compact rows, only those in use are specified.
    const actual = (await context.values(buffer)).subarray(0, judged.values.length);
    context.compare(name, actual, judged.values, judged.errors);
  };
  if (layout === "compact") {
    const { ids } = perExpert;
    checkEqual("gradTables.count", (await context.raw(compact.count))[0], ids.length);
    const actual = await context.raw(compact.ids);
    for (let r = 0; r < ids.length; r++) checkEqual(`gradTables.ids[${r}]`, actual[r], ids[r]);
  }
  const { gradHiddenStates, gradWeights } = perToken;
  await judge("gradHiddenStates", { values: gradHiddenStates, errors: errors.gradHiddenStates });
  await judge("gradWeights", { values: gradWeights, errors: errors.gradWeights });
  for (const table of ["down", "up"] as const) {
    await judge(table, tableGradient(table, layout, perExpert, errors, numExperts, hiddenSize));
  }
}

/** The expected gradient of one table in the layout asked for: all rows, or those in use. */
function tableGradient(
  table: "down" | "up",
  layout: "dense" | "compact",
  compact: CompactTableGradients,
  errors: ExpertsBackwardErrors,
  numExperts: number,
  hiddenSize: number,
): Approximate {
  const denseErrors = table === "down" ? errors.gradDown : errors.gradUp;
  const { ids } = compact;
  const isDense = layout === "dense";
  const values = isDense ? new Float64Array(numExperts * hiddenSize) : compact[table];
  const rowErrors = isDense ? denseErrors : new Float64Array(ids.length * hiddenSize);
  for (let r = 0; r < ids.length; r++) {
    const dense = ids[r] * hiddenSize;
    const row = r * hiddenSize;
    if (isDense) values.set(compact[table].subarray(row, row + hiddenSize), dense);
    else rowErrors.set(denseErrors.subarray(dense, dense + hiddenSize), row);
  }
  return { values, errors: rowErrors };
}
